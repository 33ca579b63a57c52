// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 14: loads or refuses; never fails silently. What was on kernel_clone
 * before the module may win over it; what says "armed" says what is true at that
 * moment; and a copy of descriptors that never passed the hook is noticed too.
 */
#include "coexist.h"
#include "../test/kmsg.h"

#include <linux/bpf.h>
#include <linux/btf.h>

/*
 * Rivals: those that decide where kernel_clone() goes on
 */

static int bpf(int command, union bpf_attr *attr)
{
	int ret = syscall(__NR_bpf, command, attr, sizeof(*attr));

	return ret < 0 ? -errno : ret;
}

/* btf_size - of a type in the kernel's type information, with what follows it */
static size_t btf_size(const struct btf_type *type)
{
	static const unsigned char fixed[] = {
		[BTF_KIND_INT] = 4,
		[BTF_KIND_VAR] = sizeof(struct btf_var),
		[BTF_KIND_DECL_TAG] = sizeof(struct btf_decl_tag),
		[BTF_KIND_ARRAY] = sizeof(struct btf_array),
		[NR_BTF_KINDS] = 0,
	};
	static const unsigned char each[] = {
		[BTF_KIND_STRUCT] = sizeof(struct btf_member),
		[BTF_KIND_UNION] = sizeof(struct btf_member),
		[BTF_KIND_ENUM] = sizeof(struct btf_enum),
		[BTF_KIND_ENUM64] = sizeof(struct btf_enum64),
		[BTF_KIND_FUNC_PROTO] = sizeof(struct btf_param),
		[BTF_KIND_DATASEC] = sizeof(struct btf_var_secinfo),
		[NR_BTF_KINDS] = 0,
	};
	unsigned int kind = BTF_INFO_KIND(type->info);

	return sizeof(*type) + fixed[kind] + each[kind] * BTF_INFO_VLEN(type->info);
}

/* btf_kernel_clone - the number of kernel_clone's type; -EOPNOTSUPP: there is none */
static int btf_kernel_clone(void)
{
	const struct btf_header *header;
	const char *at, *end, *strings;
	int found = -EOPNOTSUPP, id;
	struct stat stat;
	char *data;
	int fd;

	fd = open("/sys/kernel/btf/vmlinux", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -EOPNOTSUPP;
	fstat(fd, &stat);
	close(fd);
	data = malloc(stat.st_size + 1);
	if (!data || read_file("/sys/kernel/btf/vmlinux", data, stat.st_size + 1) <= 0) {
		free(data);
		return -EIO;
	}
	header = (void *)data;
	at = data + header->hdr_len + header->type_off;
	end = at + header->type_len;
	strings = data + header->hdr_len + header->str_off;
	for (id = 1; at < end; id++) {
		const struct btf_type *type = (void *)at;

		if (BTF_INFO_KIND(type->info) == BTF_KIND_FUNC &&
		    !strcmp(strings + type->name_off, "kernel_clone")) {
			found = id;
			break;
		}
		at += btf_size(type);
	}
	free(data);
	return found;
}

static int fexit_program = -1, fexit_link = -1;

/* A BPF program that runs when kernel_clone() returns, and does nothing */
static int fexit_attach(void)
{
	const struct bpf_insn nothing[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_TRACING,
		.insns = (uintptr_t)nothing,
		.insn_cnt = 2,
		.license = (uintptr_t)"GPL",
		.expected_attach_type = BPF_TRACE_FEXIT,
	};
	union bpf_attr open = {};
	int id = btf_kernel_clone();

	if (id < 0)
		return id;
	attr.attach_btf_id = id;
	fexit_program = bpf(BPF_PROG_LOAD, &attr);
	if (fexit_program < 0)
		return fexit_program;
	open.raw_tracepoint.prog_fd = fexit_program;
	fexit_link = bpf(BPF_RAW_TRACEPOINT_OPEN, &open);
	return fexit_link < 0 ? fexit_link : 0;
}

static void fexit_detach(void)
{
	if (fexit_link >= 0)
		close(fexit_link);
	if (fexit_program >= 0)
		close(fexit_program);
}

/* A module that sets the instruction pointer, as a live patch does */
static int patch_attach(void)
{
	char path[PATH_MAX];
	struct utsname name;
	ssize_t length;

	uname(&name);
	length = readlink("/proc/self/exe", path, sizeof(path) - 200);
	if (length < 0)
		return -errno;
	path[length] = '\0';
	snprintf(strrchr(path, '/'), 200, "/probe/%s/coexist_probe.ko", name.release);
	return access(path, F_OK) ? -EOPNOTSUPP : module_load(path, "how=patch");
}

static void patch_detach(void)
{
	module_unload_idle("coexist_probe");
}

FIXTURE(rival) {
	bool loaded;
	unsigned long trouble;
	int log;
};

FIXTURE_VARIANT(rival) {
	int (*attach)(void);
	void (*detach)(void);
};

FIXTURE_VARIANT_ADD(rival, fexit) { .attach = fexit_attach, .detach = fexit_detach };
FIXTURE_VARIANT_ADD(rival, patch) { .attach = patch_attach, .detach = patch_detach };

FIXTURE_SETUP(rival)
{
	int ret;

	self->loaded = forkgate_loaded();
	self->trouble = kernel_trouble();
	if (geteuid())
		SKIP(return, "needs root");
	if (access(module_path(), R_OK))
		SKIP(return, "no module at %s", module_path());
	if (self->loaded)
		ASSERT_EQ(0, forkgate_unload_idle());
	self->log = kmsg_open();
	ASSERT_LE(0, self->log);
	ret = variant->attach();
	if (ret == -EOPNOTSUPP)
		SKIP(return, "this kernel, or this build, has no such rival");
	ASSERT_EQ(0, ret);
}

FIXTURE_TEARDOWN(rival)
{
	variant->detach();
	if (self->loaded && !forkgate_loaded())
		EXPECT_EQ(0, forkgate_load());
	if (!self->loaded && forkgate_loaded())
		EXPECT_EQ(0, forkgate_unload_idle());
	EXPECT_EQ(self->trouble, kernel_trouble());
}

/* It was there first. Either the module works all the same, or it says that it does not. */
TEST_F(rival, was_first)
{
	struct probe *probe, result;

	if (forkgate_load()) {
		EXPECT_FALSE(forkgate_loaded());
		EXPECT_TRUE(kmsg_find(self->log, "", ""));
		/* Once it is gone nothing is in the way. */
		variant->detach();
		ASSERT_EQ(0, forkgate_load());
	}
	probe = probe_start(true);
	ASSERT_NE(NULL, probe);
	result = probe_finish(probe);
	EXPECT_STREQ("", result.failed);
	EXPECT_EQ(GATED_CLONES, result.waited);
	EXPECT_EQ(0, result.passed);
	EXPECT_EQ(0, result.bypasses);
}

/*
 * Switches
 */

FIXTURE(off) {
	bool loaded;
	unsigned long trouble;
	char before[20];
	int log;
};

FIXTURE_VARIANT(off) {
	const char *path;
};

FIXTURE_VARIANT_ADD(off, ftrace) { .path = "/proc/sys/kernel/ftrace_enabled" };
FIXTURE_VARIANT_ADD(off, kprobes) { .path = "/sys/kernel/debug/kprobes/enabled" };

FIXTURE_SETUP(off)
{
	int ret;

	self->loaded = forkgate_loaded();
	self->trouble = kernel_trouble();
	self->before[0] = '\0';
	if (geteuid())
		SKIP(return, "needs root");
	if (read_file(variant->path, self->before, sizeof(self->before)) <= 0)
		SKIP(return, "no %s", variant->path);
	if (access(module_path(), R_OK))
		SKIP(return, "no module at %s", module_path());
	if (!KPROBE_HOOK && !strcmp(variant->path, KPROBES))
		SKIP(return, "the hook is no kprobe here");
	ASSERT_EQ('1', self->before[0]);
	if (!self->loaded)
		ASSERT_EQ(0, forkgate_load());
	ret = write_file(variant->path, "0");
	if (ret == -EBUSY || ret == -EOPNOTSUPP)
		SKIP(return, "%s cannot be switched off here", variant->path);
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, write_file(variant->path, "1"));
	self->log = kmsg_open();
	ASSERT_LE(0, self->log);
	ASSERT_LE(0, gate_setup());
}

FIXTURE_TEARDOWN(off)
{
	if (self->before[0])
		EXPECT_EQ(0, write_file(variant->path, "1"));
	give_up_gate();
	if (!self->loaded && forkgate_loaded())
		EXPECT_EQ(0, forkgate_unload_idle());
	EXPECT_EQ(self->trouble, kernel_trouble());
}

/* armed_in_stats - what root reads in debugfs, -1 without it */
static int armed_in_stats(void)
{
	char text[8192], *at;

	if (read_file(DEBUGFS "/stats", text, sizeof(text)) <= 0)
		return -1;
	at = strstr(text, "armed ");
	return at ? atoi(at + 6) : -1;
}

/* No clone is needed to see that the hook is off, and that it is on again. */
TEST_F(off, armed)
{
	int i;

	for (i = 0; i < 2; i++) {
		EXPECT_EQ(1, gate_health().armed);
		EXPECT_EQ(1, armed_in_stats());
		ASSERT_EQ(0, write_file(variant->path, "0"));
		EXPECT_EQ(0, gate_health().armed);
		EXPECT_EQ(0, armed_in_stats());
		ASSERT_EQ(0, write_file(variant->path, "1"));
	}
	EXPECT_EQ(1, gate_health().armed);
}

/* After a copy that it missed the hook is trusted again when it has caught one. */
TEST_F(off, armed_after_a_bypass)
{
	struct fork_how how = { .child = child_tells };
	struct worker forker;

	ASSERT_EQ(0, worker_new(&forker));
	ASSERT_EQ(0, write_file(variant->path, "0"));
	start(&forker, job_fork, &how);
	EXPECT_EQ(CHILD_BYPASSED, finish_fork(&forker));
	EXPECT_EQ(0, gate_health().armed);
	ASSERT_EQ(0, write_file(variant->path, "1"));
	start(&forker, job_fork, &how);
	EXPECT_EQ(0, finish_fork(&forker));
	EXPECT_EQ(1, gate_health().armed);
}

static int opened, enough;

static void *open_stats(void *unused)
{
	int fd;

	while (!READ_ONCE(enough)) {
		fd = open(DEBUGFS "/stats", O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		WRITE_ONCE(opened, opened + 1);
		close(fd);
	}
	return NULL;
}

/* The kernel frees a module that does not load, whatever files of it are open. */
TEST_F(off, load_shows_no_files)
{
	pthread_t thread;
	int i;

	give_up_gate();
	ASSERT_EQ(0, forkgate_unload_idle());
	ASSERT_EQ(0, write_file(variant->path, "0"));
	ASSERT_EQ(0, pthread_create(&thread, NULL, open_stats, NULL));
	for (i = 0; i < 20; i++)
		EXPECT_GT(0, forkgate_load());
	WRITE_ONCE(enough, 1);
	pthread_join(thread, NULL);
	EXPECT_EQ(0, opened);
	ASSERT_EQ(0, write_file(variant->path, "1"));
	ASSERT_EQ(0, forkgate_load());
}

static struct fork_how vfork_files = { .flags = CLONE_VM | CLONE_VFORK, .child = child_nothing };

/* Copies of the descriptors alone, by a vfork or not: noticed by gate, machine, forker and log */
TEST_F(off, files_alone)
{
	struct fork_how *how[] = { &vfork_files, &fork_files };
	struct forkgate_health before;
	struct worker forker, holder;
	char text[32];
	int i;

	ASSERT_EQ(0, worker_new(&forker));
	ASSERT_EQ(0, worker_new(&holder));
	ASSERT_EQ(0, run(&holder, job_hold, ARG(FILES)));
	for (i = 0; i < 2; i++) {
		before = gate_health();
		ASSERT_EQ(0, write_file(variant->path, "0"));
		start(&forker, job_fork, how[i]);
		EXPECT_EQ(0, finish_fork(&forker));
		EXPECT_EQ(i + 1, gate_state().bypasses);
		EXPECT_EQ(before.bypasses + 1, gate_health().bypasses);
		EXPECT_EQ(before.redirects, gate_health().redirects);
		EXPECT_EQ(0, gate_state().closed);
		EXPECT_EQ(FORKGATE_OUTCOME_BYPASSED, run(&forker, job_outcome, NULL));
		ASSERT_EQ(0, write_file(variant->path, "1"));
	}
	snprintf(text, sizeof(text), "thread %d", forker.tid);
	EXPECT_TRUE(wait_until(kmsg_find(self->log, text, "without passing the gate")));
	/* The holder counts again. */
	start(&forker, job_fork, &vfork_files);
	ASSERT_TRUE(wait_until(!busy(&forker) || worker_waits(&forker, 1)));
	ASSERT_TRUE(busy(&forker));
	ASSERT_EQ(0, run(&holder, job_drop, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&forker));
	EXPECT_EQ(2, gate_state().bypasses);
}

/* What copies nothing bypasses nothing. */
static void *thread_nothing(void *unused)
{
	return NULL;
}

static long job_thread(void *unused)
{
	pthread_t thread;
	int ret = pthread_create(&thread, NULL, thread_nothing, NULL);

	return ret ? -ret : -pthread_join(thread, NULL);
}

TEST_F(off, threads)
{
	struct fork_how shared_all = {
		.flags = CLONE_VM | CLONE_VFORK | CLONE_FILES,
		.child = child_nothing,
	};
	struct worker forker;

	ASSERT_EQ(0, worker_new(&forker));
	ASSERT_EQ(0, write_file(variant->path, "0"));
	EXPECT_EQ(0, run(&forker, job_thread, NULL));
	start(&forker, job_fork, &shared_all);
	EXPECT_EQ(0, finish_fork(&forker));
	ASSERT_EQ(0, write_file(variant->path, "1"));
	EXPECT_EQ(0, gate_state().bypasses);
}

TEST_HARNESS_MAIN
