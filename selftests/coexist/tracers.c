// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tracers on kernel_clone, attached and detached before and after the module
 * is loaded and unloaded, in every order. Whatever the order, nothing breaks:
 * the kernel has no complaint, clones of gated processes wait, other clones
 * are counted exactly once, and so are gated ones by every tracer that was
 * attached after the module. A kprobe attached before it may miss those.
 *
 * A tracer that takes the function over (a BPF program at its exit, a live
 * patch) may win over the gate. The module does not load then; if it was there
 * first, every such clone is noticed.
 */
#include "coexist.h"

#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/perf_event.h>

#define TRACING		"/sys/kernel/tracing/"
#define FUNCTION	"kernel_clone"
#define MAX_CPUS	256

struct tracer;

/**
 * struct tracer_type - one way to trace
 * @attach: 0, -EOPNOTSUPP where this kernel cannot, or a negative errno
 * @detach: the opposite
 * @watch: count the calls of thread @tid from now on
 * @hits: how many there were
 * @probe: a kprobe: what was attached before the module may miss gated clones
 * @rival: it may win over the gate
 */
struct tracer_type {
	int (*attach)(struct tracer *t);
	void (*detach)(struct tracer *t);
	int (*watch)(struct tracer *t, pid_t tid);
	long (*hits)(struct tracer *t, pid_t tid);
	bool probe;
	bool rival;
};

/**
 * struct tracer - a tracer and its state
 * @name: of it, and of what it makes in tracefs
 * @type: how it does it
 * @spec: its definition in tracefs, name of a current_tracer, BPF attach type
 *	or parameter of the test module
 * @line: what the lines that it writes contain
 * @attached: it is
 * @before: it was attached before the module was loaded
 * @fd: perf events, or BPF program and link
 * @fds: how many
 * @map: BPF map
 */
struct tracer {
	const char *name;
	const struct tracer_type *type;
	const char *spec;
	const char *line;
	bool attached;
	bool before;
	int fd[MAX_CPUS];
	int fds;
	int map;
};

/*
 * tracefs
 */

static int tracefs_write(const char *directory, const char *file, const char *text)
{
	char path[400];

	snprintf(path, sizeof(path), "%s%s", directory, file);
	return write_file(path, text);
}

static int tracefs_append(const char *file, const char *text)
{
	char path[200];
	int ret = 0;
	int fd;

	snprintf(path, sizeof(path), TRACING "%s", file);
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

/* Every tracer has an instance of its own, except the one that cannot. */
static const char *tracefs_instance(struct tracer *t)
{
	static char path[200];

	if (!strcmp(t->name, "function_graph"))
		return TRACING;
	snprintf(path, sizeof(path), TRACING "instances/coexist-%s/", t->name);
	return path;
}

static int tracefs_make(struct tracer *t)
{
	if (mkdir(tracefs_instance(t), 0700) && errno != EEXIST)
		return errno == ENOENT ? -EOPNOTSUPP : -errno;
	return 0;
}

static int tracefs_watch(struct tracer *t, pid_t tid)
{
	char path[300];
	int fd;

	/* Opening for writing with O_TRUNC is what empties it. */
	snprintf(path, sizeof(path), "%strace", tracefs_instance(t));
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static long tracefs_hits(struct tracer *t, pid_t tid)
{
	char path[300], who[20], *line = NULL, *at;
	size_t size = 0;
	long hits = 0;
	FILE *trace;

	snprintf(path, sizeof(path), "%strace", tracefs_instance(t));
	snprintf(who, sizeof(who), "-%d", tid);
	trace = fopen(path, "re");
	if (!trace)
		return -errno;
	while (getline(&line, &size, trace) > 0) {
		at = strstr(line, who);
		if (at && (at[strlen(who)] < '0' || at[strlen(who)] > '9') && strstr(line, t->line))
			hits++;
	}
	free(line);
	fclose(trace);
	return hits;
}

static const char *tracefs_event(struct tracer *t, const char *file)
{
	static char path[200];

	snprintf(path, sizeof(path), "events/coexist/%s/%s", t->name, file);
	return path;
}

static int event_attach(struct tracer *t)
{
	char definition[100];
	int ret;

	snprintf(definition, sizeof(definition), t->spec, t->name);
	ret = tracefs_append("dynamic_events", definition);
	/* This kind of event is not known. */
	if (ret == -EINVAL || ret == -EOPNOTSUPP || ret == -ENOENT)
		return -EOPNOTSUPP;
	if (!ret)
		ret = tracefs_make(t);
	if (!ret)
		ret = tracefs_write(tracefs_instance(t), tracefs_event(t, "enable"), "1");
	return ret;
}

static void event_detach(struct tracer *t)
{
	char definition[100];

	tracefs_write(tracefs_instance(t), tracefs_event(t, "enable"), "0");
	rmdir(tracefs_instance(t));
	snprintf(definition, sizeof(definition), "-:coexist/%s", t->name);
	tracefs_append("dynamic_events", definition);
}

static int current_attach(struct tracer *t)
{
	int ret;

	/*
	 * Before it was an ftrace_ops, the graph tracer looked at what other
	 * ones made of the instruction pointer, and missed what had a kprobe.
	 */
	if (!strcmp(t->name, "function_graph") && !kernel_has("ftrace_graph_func"))
		return -EOPNOTSUPP;
	ret = tracefs_make(t);
	if (!ret)
		ret = tracefs_write(tracefs_instance(t), "set_ftrace_filter", FUNCTION);
	if (!ret)
		tracefs_write(tracefs_instance(t), "options/funcgraph-proc", "1");
	if (!ret)
		ret = tracefs_write(tracefs_instance(t), "current_tracer", t->spec);
	return ret == -ENOENT ? -EOPNOTSUPP : ret;
}

static void current_detach(struct tracer *t)
{
	const char *instance = tracefs_instance(t);
	char path[300];

	tracefs_write(instance, "current_tracer", "nop");
	/* The top one stays, hence without its filter: opening it empties it. */
	snprintf(path, sizeof(path), "%sset_ftrace_filter", instance);
	close(open(path, O_WRONLY | O_TRUNC | O_CLOEXEC));
	rmdir(instance);
}

/*
 * perf
 */

static int perf_type(void)
{
	char text[20];

	if (read_file("/sys/bus/event_source/devices/kprobe/type", text, sizeof(text)) <= 0)
		return -EOPNOTSUPP;
	return atoi(text);
}

static int perf_open(int cpu)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.sample_period = 1,
		.kprobe_func = (uintptr_t)FUNCTION,
	};
	int fd = perf_type();

	if (fd < 0)
		return fd;
	attr.type = fd;
	fd = syscall(__NR_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int perf_attach(struct tracer *t)
{
	int cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int fd;

	/* A filter can be set but once, hence for a name rather than a number. */

	for (t->fds = 0; t->fds < cpus && t->fds < MAX_CPUS; t->fds++) {
		fd = perf_open(t->fds);
		if (fd < 0)
			return fd;
		t->fd[t->fds] = fd;
		if (ioctl(fd, PERF_EVENT_IOC_SET_FILTER, "COMM == \"" PROBE_NAME "\"")) {
			t->fds++;
			return -errno;
		}
	}
	return 0;
}

static void perf_detach(struct tracer *t)
{
	while (t->fds)
		close(t->fd[--t->fds]);
}

static int perf_watch(struct tracer *t, pid_t tid)
{
	for (int i = 0; i < t->fds; i++) {
		if (ioctl(t->fd[i], PERF_EVENT_IOC_RESET, 0))
			return -errno;
	}
	return 0;
}

static long perf_hits(struct tracer *t, pid_t tid)
{
	__u64 one;
	long hits = 0;

	for (int i = 0; i < t->fds; i++) {
		if (read(t->fd[i], &one, sizeof(one)) != sizeof(one))
			return -errno;
		hits += one;
	}
	return hits;
}

/*
 * BPF, without a library: one program that counts per thread
 */

static int bpf(int command, union bpf_attr *attr)
{
	int ret = syscall(__NR_bpf, command, attr, sizeof(*attr));

	return ret < 0 ? -errno : ret;
}

#define INSN(c, d, s, o, i) \
	((struct bpf_insn){ .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) })

/* bpf_load - a program that adds one where the map has the current thread */
static int bpf_load(int map, enum bpf_prog_type type, int attach_type, int btf_id)
{
	struct bpf_insn program[] = {
		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_get_current_pid_tgid),
		INSN(BPF_STX | BPF_MEM | BPF_W, 10, 0, -4, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0),
		INSN(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -4),
		INSN(BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_FD, 0, map),
		INSN(0, 0, 0, 0, 0),
		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem),
		INSN(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 2, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 1, 0, 0, 1),
		INSN(BPF_STX | BPF_ATOMIC | BPF_DW, 0, 1, 0, BPF_ADD),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	union bpf_attr attr = {
		.prog_type = type,
		.insns = (uintptr_t)program,
		.insn_cnt = ARRAY_SIZE(program),
		.license = (uintptr_t)"GPL",
		.expected_attach_type = attach_type,
		.attach_btf_id = btf_id,
	};

	return bpf(BPF_PROG_LOAD, &attr);
}

static int bpf_map(void)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_HASH,
		.key_size = sizeof(__u32),
		.value_size = sizeof(__u64),
		.max_entries = 4,
	};

	return bpf(BPF_MAP_CREATE, &attr);
}

static int bpf_watch(struct tracer *t, pid_t tid)
{
	__u32 key, next = tid;
	__u64 zero = 0;
	union bpf_attr attr = {
		.map_fd = t->map,
		.key = (uintptr_t)&key,
	};
	union bpf_attr first = {
		.map_fd = t->map,
		.next_key = (uintptr_t)&key,
	};

	while (!bpf(BPF_MAP_GET_NEXT_KEY, &first))
		bpf(BPF_MAP_DELETE_ELEM, &attr);
	attr.key = (uintptr_t)&next;
	attr.value = (uintptr_t)&zero;
	return bpf(BPF_MAP_UPDATE_ELEM, &attr);
}

static long bpf_hits(struct tracer *t, pid_t tid)
{
	__u32 key = tid;
	__u64 hits;
	union bpf_attr attr = {
		.map_fd = t->map,
		.key = (uintptr_t)&key,
		.value = (uintptr_t)&hits,
	};
	int ret = bpf(BPF_MAP_LOOKUP_ELEM, &attr);

	return ret ? ret : (long)hits;
}

static void bpf_detach(struct tracer *t)
{
	while (t->fds)
		close(t->fd[--t->fds]);
	if (t->map > 0)
		close(t->map);
	t->map = 0;
}

static int bpf_probe_attach(struct tracer *t)
{
	int program, fd;

	t->map = bpf_map();
	if (t->map < 0)
		return t->map;
	program = bpf_load(t->map, BPF_PROG_TYPE_KPROBE, 0, 0);
	if (program < 0)
		return program;
	fd = perf_open(0);
	if (fd < 0)
		return fd;
	t->fd[t->fds++] = program;
	t->fd[t->fds++] = fd;
	if (ioctl(fd, PERF_EVENT_IOC_SET_BPF, program) || ioctl(fd, PERF_EVENT_IOC_ENABLE, 0))
		return -errno;
	return 0;
}

static int bpf_multi_attach(struct tracer *t)
{
	const char *symbol = FUNCTION;
	union bpf_attr attr = {
		.link_create.attach_type = BPF_TRACE_KPROBE_MULTI,
		.link_create.kprobe_multi.cnt = 1,
		.link_create.kprobe_multi.syms = (uintptr_t)&symbol,
	};
	int program, fd;

	/* It would accept the program. */
	if (!kernel_has("bpf_kprobe_multi_link_attach"))
		return -EOPNOTSUPP;
	if (!strcmp(t->spec, "return"))
		attr.link_create.kprobe_multi.flags = BPF_F_KPROBE_MULTI_RETURN;
	t->map = bpf_map();
	if (t->map < 0)
		return t->map;
	program = bpf_load(t->map, BPF_PROG_TYPE_KPROBE, BPF_TRACE_KPROBE_MULTI, 0);
	if (program < 0)
		return program == -EINVAL ? -EOPNOTSUPP : program;
	t->fd[t->fds++] = program;
	attr.link_create.prog_fd = program;
	fd = bpf(BPF_LINK_CREATE, &attr);
	if (fd < 0)
		return fd;
	t->fd[t->fds++] = fd;
	return 0;
}

/* btf_member_size - what follows a type in the kernel's type information */
static size_t btf_extra(const struct btf_type *type)
{
	unsigned int n = BTF_INFO_VLEN(type->info);

	switch (BTF_INFO_KIND(type->info)) {
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case BTF_KIND_DECL_TAG:
		return 4;
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return n * sizeof(struct btf_member);
	case BTF_KIND_ENUM:
		return n * sizeof(struct btf_enum);
	case BTF_KIND_ENUM64:
		return n * sizeof(struct btf_enum64);
	case BTF_KIND_FUNC_PROTO:
		return n * sizeof(struct btf_param);
	case BTF_KIND_DATASEC:
		return n * sizeof(struct btf_var_secinfo);
	default:
		return 0;
	}
}

/* btf_function - the number of FUNCTION's type, -EOPNOTSUPP without one */
static int btf_function(void)
{
	int fd = open("/sys/kernel/btf/vmlinux", O_RDONLY | O_CLOEXEC);
	const struct btf_header *header;
	const char *at, *end, *strings;
	int found = -EOPNOTSUPP;
	struct stat stat;
	char *data;

	if (fd < 0)
		return -EOPNOTSUPP;
	fstat(fd, &stat);
	data = malloc(stat.st_size + 1);
	if (!data || read_file("/sys/kernel/btf/vmlinux", data, stat.st_size + 1) <= 0) {
		close(fd);
		free(data);
		return -EIO;
	}
	close(fd);
	header = (void *)data;
	at = data + header->hdr_len + header->type_off;
	end = at + header->type_len;
	strings = data + header->hdr_len + header->str_off;
	for (int id = 1; at < end; id++) {
		const struct btf_type *type = (void *)at;

		if (BTF_INFO_KIND(type->info) == BTF_KIND_FUNC &&
		    !strcmp(strings + type->name_off, FUNCTION)) {
			found = id;
			break;
		}
		at += sizeof(*type) + btf_extra(type);
	}
	free(data);
	return found;
}

static int bpf_trampoline_attach(struct tracer *t)
{
	int type = strcmp(t->spec, "exit") ? BPF_TRACE_FENTRY : BPF_TRACE_FEXIT;
	union bpf_attr attr = { 0 };
	int function, program, fd;

	function = btf_function();
	if (function < 0)
		return function;
	t->map = bpf_map();
	if (t->map < 0)
		return t->map;
	program = bpf_load(t->map, BPF_PROG_TYPE_TRACING, type, function);
	if (program < 0)
		return program;
	t->fd[t->fds++] = program;
	attr.raw_tracepoint.prog_fd = program;
	fd = bpf(BPF_RAW_TRACEPOINT_OPEN, &attr);
	if (fd < 0)
		return fd;
	t->fd[t->fds++] = fd;
	return 0;
}

/*
 * The test module
 */

#define PROBE_PARAMETERS "/sys/module/coexist_probe/parameters/"

static int probe_load(const char *how)
{
	char path[PATH_MAX], parameters[40];
	struct utsname name;
	ssize_t length;

	uname(&name);
	length = readlink("/proc/self/exe", path, sizeof(path) - 200);
	if (length < 0)
		return -errno;
	path[length] = '\0';
	snprintf(strrchr(path, '/'), 200, "/probe/%s/coexist_probe.ko", name.release);
	if (access(path, F_OK))
		return -EOPNOTSUPP;
	snprintf(parameters, sizeof(parameters), "how=%s", how);
	return module_load(path, parameters);
}

static int module_attach(struct tracer *t)
{
	/* Where the hook is no kprobe: see a_patch_and_the_hook */
	if (!KPROBE_HOOK && !strcmp(t->spec, "patch"))
		return -EOPNOTSUPP;
	return probe_load(t->spec);
}

static void module_detach(struct tracer *t)
{
	module_unload_idle("coexist_probe");
}

static int module_watch(struct tracer *t, pid_t tid)
{
	char text[20];
	int ret;

	snprintf(text, sizeof(text), "%d", tid);
	ret = write_file(PROBE_PARAMETERS "tid", text);
	if (!ret)
		ret = write_file(PROBE_PARAMETERS "hits", "0");
	return ret;
}

static long module_hits(struct tracer *t, pid_t tid)
{
	char text[20];
	int ret = read_file(PROBE_PARAMETERS "hits", text, sizeof(text));

	return ret < 0 ? ret : atol(text);
}

/*
 * All of them
 */

static const struct tracer_type event_probe = {
	.attach = event_attach,
	.detach = event_detach,
	.watch = tracefs_watch,
	.hits = tracefs_hits,
	.probe = true,
};

static const struct tracer_type event_fprobe = {
	.attach = event_attach,
	.detach = event_detach,
	.watch = tracefs_watch,
	.hits = tracefs_hits,
};

static const struct tracer_type current_tracer = {
	.attach = current_attach,
	.detach = current_detach,
	.watch = tracefs_watch,
	.hits = tracefs_hits,
};

static const struct tracer_type perf_probe = {
	.attach = perf_attach,
	.detach = perf_detach,
	.watch = perf_watch,
	.hits = perf_hits,
	.probe = true,
};

static const struct tracer_type bpf_probe = {
	.attach = bpf_probe_attach,
	.detach = bpf_detach,
	.watch = bpf_watch,
	.hits = bpf_hits,
	.probe = true,
};

static const struct tracer_type bpf_multi = {
	.attach = bpf_multi_attach,
	.detach = bpf_detach,
	.watch = bpf_watch,
	.hits = bpf_hits,
};

static const struct tracer_type bpf_trampoline = {
	.attach = bpf_trampoline_attach,
	.detach = bpf_detach,
	.watch = bpf_watch,
	.hits = bpf_hits,
};

static const struct tracer_type bpf_rival = {
	.attach = bpf_trampoline_attach,
	.detach = bpf_detach,
	.watch = bpf_watch,
	.hits = bpf_hits,
	.rival = true,
};

static const struct tracer_type module_probe = {
	.attach = module_attach,
	.detach = module_detach,
	.watch = module_watch,
	.hits = module_hits,
	.probe = true,
};

static const struct tracer_type module_ops = {
	.attach = module_attach,
	.detach = module_detach,
	.watch = module_watch,
	.hits = module_hits,
};

static const struct tracer_type module_rival = {
	.attach = module_attach,
	.detach = module_detach,
	.watch = module_watch,
	.hits = module_hits,
	.rival = true,
};

enum {
	T_KPROBE, T_KRETPROBE, T_FPROBE, T_FPROBE_RETURN, T_FUNCTION, T_FUNCTION_GRAPH, T_PERF,
	T_BPF_KPROBE, T_BPF_KPROBE_MULTI, T_BPF_KRETPROBE_MULTI, T_BPF_FENTRY, T_BPF_FEXIT,
	T_MODULE_KPROBE, T_MODULE_KRETPROBE, T_MODULE_FTRACE, T_MODULE_PATCH, TRACERS,
};

static struct tracer tracers[TRACERS] = {
	[T_KPROBE] = {
		.name = "kprobe",
		.type = &event_probe,
		.spec = "p:coexist/%s " FUNCTION,
		.line = "kprobe: (",
	},
	[T_KRETPROBE] = {
		.name = "kretprobe",
		.type = &event_probe,
		.spec = "r:coexist/%s " FUNCTION,
		.line = "kretprobe: (",
	},
	[T_FPROBE] = {
		.name = "fprobe",
		.type = &event_fprobe,
		.spec = "f:coexist/%s " FUNCTION,
		.line = "fprobe: (",
	},
	[T_FPROBE_RETURN] = {
		.name = "fprobe_return",
		.type = &event_fprobe,
		.spec = "f:coexist/%s " FUNCTION "%%return",
		.line = "fprobe_return: (",
	},
	[T_FUNCTION] = {
		.name = "function",
		.type = &current_tracer,
		.spec = "function",
		.line = FUNCTION " <-",
	},
	[T_FUNCTION_GRAPH] = {
		.name = "function_graph",
		.type = &current_tracer,
		.spec = "function_graph",
		.line = FUNCTION "()",
	},
	[T_PERF] = {
		.name = "perf",
		.type = &perf_probe,
	},
	[T_BPF_KPROBE] = {
		.name = "bpf_kprobe",
		.type = &bpf_probe,
	},
	[T_BPF_KPROBE_MULTI] = {
		.name = "bpf_kprobe_multi",
		.type = &bpf_multi,
		.spec = "entry",
	},
	[T_BPF_KRETPROBE_MULTI] = {
		.name = "bpf_kretprobe_multi",
		.type = &bpf_multi,
		.spec = "return",
	},
	[T_BPF_FENTRY] = {
		.name = "bpf_fentry",
		.type = &bpf_trampoline,
		.spec = "entry",
	},
	[T_BPF_FEXIT] = {
		.name = "bpf_fexit",
		.type = &bpf_rival,
		.spec = "exit",
	},
	[T_MODULE_KPROBE] = {
		.name = "module_kprobe",
		.type = &module_probe,
		.spec = "kprobe",
	},
	[T_MODULE_KRETPROBE] = {
		.name = "module_kretprobe",
		.type = &module_probe,
		.spec = "kretprobe",
	},
	[T_MODULE_FTRACE] = {
		.name = "module_ftrace",
		.type = &module_ops,
		.spec = "ops",
	},
	[T_MODULE_PATCH] = {
		.name = "module_patch",
		.type = &module_rival,
		.spec = "patch",
	},
};

/* 0 or a negative errno; leaves nothing behind when it fails */
static int attach(struct tracer *t)
{
	int ret = t->type->attach(t);

	if (ret) {
		t->type->detach(t);
		return ret;
	}
	t->attached = true;
	t->before = !forkgate_loaded();
	return 0;
}

static void detach(struct tracer *t)
{
	t->type->detach(t);
	t->attached = false;
}

static int load(void)
{
	int ret = forkgate_load();

	for (int i = 0; !ret && i < TRACERS; i++)
		tracers[i].before = tracers[i].attached;
	return ret;
}

/* check - clone, and see that every tracer attached did as promised */
static bool check(const char *when)
{
	bool gated = forkgate_loaded(), rival = false, good = true;
	struct probe *start = probe_start(gated), result;
	pid_t tid;

	if (!start) {
		printf("# %s: no probe\n", when);
		return false;
	}
	tid = start->tid;
	for (int i = 0; i < TRACERS; i++) {
		struct tracer *t = &tracers[i];
		int ret = t->attached ? t->type->watch(t, tid) : 0;

		if (ret) {
			printf("# %s: cannot watch with %s: %d\n", when, t->name, ret);
			good = false;
		}
		rival |= t->attached && t->type->rival;
	}
	result = probe_finish(start);
	if (result.failed[0]) {
		printf("# %s: %s\n", when, result.failed);
		return false;
	}
	if (result.passed != (rival ? result.bypassed : 0) ||
	    result.passed != result.bypasses || result.torn > result.passed) {
		printf("# %s: %d clones waited, %d did not: %d children saw it, %d know it\n",
		       when, result.waited, result.passed, result.torn, result.bypassed);
		printf("# the gate counted %d\n", result.bypasses);
		good = false;
	} else if (result.passed) {
		printf("# %s: the tracer won, %d clones passed the gate and were noticed\n", when,
		       result.passed);
	}
	for (int i = 0; i < TRACERS; i++) {
		struct tracer *t = &tracers[i];
		int least = result.clones;
		long hits;

		if (!t->attached)
			continue;
		hits = t->type->hits(t, tid);
		if (gated && ((t->type->probe && t->before) || t->type->rival))
			least = PLAIN_CLONES;
		if (hits < least || hits > result.clones) {
			printf("# %s: %s counted %ld of %d clones\n", when, t->name, hits,
			       result.clones);
			good = false;
		}
	}
	return good;
}

FIXTURE(tracer)
{
	bool loaded;
	unsigned long trouble;
};

FIXTURE_VARIANT(tracer)
{
	int tracer;
};

FIXTURE_VARIANT_ADD(tracer, kprobe)
{
	.tracer = T_KPROBE,
};

FIXTURE_VARIANT_ADD(tracer, kretprobe)
{
	.tracer = T_KRETPROBE,
};

FIXTURE_VARIANT_ADD(tracer, fprobe)
{
	.tracer = T_FPROBE,
};

FIXTURE_VARIANT_ADD(tracer, fprobe_return)
{
	.tracer = T_FPROBE_RETURN,
};

FIXTURE_VARIANT_ADD(tracer, function)
{
	.tracer = T_FUNCTION,
};

FIXTURE_VARIANT_ADD(tracer, function_graph)
{
	.tracer = T_FUNCTION_GRAPH,
};

FIXTURE_VARIANT_ADD(tracer, perf)
{
	.tracer = T_PERF,
};

FIXTURE_VARIANT_ADD(tracer, bpf_kprobe)
{
	.tracer = T_BPF_KPROBE,
};

FIXTURE_VARIANT_ADD(tracer, bpf_kprobe_multi)
{
	.tracer = T_BPF_KPROBE_MULTI,
};

FIXTURE_VARIANT_ADD(tracer, bpf_kretprobe_multi)
{
	.tracer = T_BPF_KRETPROBE_MULTI,
};

FIXTURE_VARIANT_ADD(tracer, bpf_fentry)
{
	.tracer = T_BPF_FENTRY,
};

FIXTURE_VARIANT_ADD(tracer, bpf_fexit)
{
	.tracer = T_BPF_FEXIT,
};

FIXTURE_VARIANT_ADD(tracer, module_kprobe)
{
	.tracer = T_MODULE_KPROBE,
};

FIXTURE_VARIANT_ADD(tracer, module_kretprobe)
{
	.tracer = T_MODULE_KRETPROBE,
};

FIXTURE_VARIANT_ADD(tracer, module_ftrace)
{
	.tracer = T_MODULE_FTRACE,
};

FIXTURE_VARIANT_ADD(tracer, module_patch)
{
	.tracer = T_MODULE_PATCH,
};

static void set_up(struct __test_metadata *_metadata, bool *loaded, unsigned long *trouble)
{
	*loaded = forkgate_loaded();
	*trouble = kernel_trouble();
	if (geteuid())
		SKIP(return, "needs root");
	if (access(TRACING "trace", W_OK))
		SKIP(return, "tracefs is not mounted at " TRACING);
	if (access(module_path(), R_OK))
		SKIP(return, "no module at %s", module_path());
	if (*loaded)
		ASSERT_EQ(0, forkgate_unload_idle());
}

static void tear_down(struct __test_metadata *_metadata, bool loaded, unsigned long trouble)
{
	for (int i = 0; i < TRACERS; i++) {
		if (tracers[i].attached)
			detach(&tracers[i]);
	}
	if (loaded && !forkgate_loaded())
		EXPECT_EQ(0, forkgate_load());
	if (!loaded && forkgate_loaded())
		EXPECT_EQ(0, forkgate_unload_idle());
	EXPECT_EQ(trouble, kernel_trouble());
}

FIXTURE_SETUP(tracer)
{
	set_up(_metadata, &self->loaded, &self->trouble);
}

FIXTURE_TEARDOWN(tracer)
{
	tear_down(_metadata, self->loaded, self->trouble);
}

/* A: attach, D: detach, I: load the module, R: remove it */
TEST_F(tracer, every_order)
{
	static const char *const orders[] = { "AIDR", "AIRD", "IADR", "IARD" };
	struct tracer *t = &tracers[variant->tracer];
	bool refused = false;
	char when[40];
	int ret;

	for (int i = 0; i < 4; i++) {
		for (int j = 0; orders[i][j]; j++) {
			snprintf(when, sizeof(when), "%s after %.*s", t->name, j + 1, orders[i]);
			switch (orders[i][j]) {
			case 'A':
				ret = attach(t);
				if (ret == -EOPNOTSUPP)
					SKIP(return, "this kernel or build has no %s", t->name);
				ASSERT_EQ(0, ret) TH_LOG("attach %s: %s", when, strerror(-ret));
				break;
			case 'D':
				detach(t);
				if (refused)
					ASSERT_EQ(0, load()) TH_LOG("%s", when);
				refused = false;
				break;
			case 'I':
				ret = load();
				refused = t->attached && t->type->rival && ret == -EOPNOTSUPP;
				ASSERT_EQ(0, refused ? 0 : ret) TH_LOG("%s", when);
				ASSERT_EQ(!refused, forkgate_loaded());
				break;
			case 'R':
				if (!refused)
					ASSERT_EQ(0, forkgate_unload_idle()) TH_LOG("%s", when);
				refused = false;
				break;
			}
			ASSERT_TRUE(check(when));
		}
	}
}

/* Attach or detach while a clone waits: it has entered the function already. */
TEST_F(tracer, while_a_clone_waits)
{
	struct tracer *t = &tracers[variant->tracer];
	struct worker forker, holder;
	int ret;

	ASSERT_EQ(0, load());
	ret = attach(t);
	if (ret == -EOPNOTSUPP)
		SKIP(return, "this kernel or build has no %s", t->name);
	ASSERT_EQ(0, ret);
	if (t->type->rival)
		SKIP(return, "%s may win over the gate", t->name);
	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, worker_new(&forker));
	ASSERT_EQ(0, worker_new(&holder));
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, run(&holder, job_hold, ARG(BOTH)));
		ASSERT_TRUE(fork_waits(&forker, &fork_both, 1));
		if (!i)
			detach(t);
		ASSERT_EQ(0, i ? attach(t) : 0);
		EXPECT_EQ(-EAGAIN, forkgate_unload());
		ASSERT_EQ(0, run(&holder, job_drop, ARG(BOTH)));
		ASSERT_EQ(0, finish_fork(&forker));
	}
	give_up_gate();
	EXPECT_EQ(0, forkgate_unload_idle());
}

FIXTURE(pair)
{
	bool loaded;
	unsigned long trouble;
};

FIXTURE_SETUP(pair)
{
	set_up(_metadata, &self->loaded, &self->trouble);
}

FIXTURE_TEARDOWN(pair)
{
	module_unload_idle("coexist_probe");
	tear_down(_metadata, self->loaded, self->trouble);
}

/* A hook that is an ftrace_ops and a patch of the function keep each other out. */
TEST_F(pair, a_patch_and_the_hook)
{
	int ret;

	if (KPROBE_HOOK)
		SKIP(return, "the hook is a kprobe here");
	ASSERT_EQ(0, load());
	ret = probe_load("patch");
	if (ret == -EOPNOTSUPP)
		SKIP(return, "no test module for this kernel");
	EXPECT_EQ(-EBUSY, ret);
	ASSERT_TRUE(check("a patch was refused"));
	ASSERT_EQ(0, forkgate_unload_idle());
	ASSERT_EQ(0, probe_load("patch"));
	EXPECT_EQ(-EBUSY, load());
	EXPECT_FALSE(forkgate_loaded());
	ASSERT_EQ(0, module_unload_idle("coexist_probe"));
	ASSERT_EQ(0, load());
	ASSERT_TRUE(check("the patch has gone"));
}

FIXTURE(all)
{
	bool loaded;
	unsigned long trouble;
};

FIXTURE_SETUP(all)
{
	set_up(_metadata, &self->loaded, &self->trouble);
}

FIXTURE_TEARDOWN(all)
{
	tear_down(_metadata, self->loaded, self->trouble);
}

static bool conflict(const struct tracer *t)
{
	/* There is only one test module. */
	for (int i = 0; i < TRACERS; i++) {
		if (&tracers[i] != t && tracers[i].attached &&
		    tracers[i].type->attach == module_attach && t->type->attach == module_attach)
			return true;
	}
	return t->type->rival;
}

/* All at once: in order, in reverse, and at random */
TEST_F(all, attached_before)
{
	ASSERT_TRUE(check("alone"));
	for (int i = 0; i < TRACERS; i++) {
		if (!conflict(&tracers[i]))
			attach(&tracers[i]);
	}
	ASSERT_TRUE(check("all, no module"));
	ASSERT_EQ(0, load());
	ASSERT_TRUE(check("all, then the module"));
	for (int i = 0; i < TRACERS; i++) {
		if (tracers[i].attached)
			detach(&tracers[i]);
	}
	ASSERT_TRUE(check("all gone, the module stays"));
}

TEST_F(all, attached_after)
{
	ASSERT_EQ(0, load());
	for (int i = 0; i < TRACERS; i++) {
		if (!conflict(&tracers[i]))
			attach(&tracers[i]);
	}
	ASSERT_TRUE(check("the module, then all"));
	ASSERT_EQ(0, forkgate_unload_idle());
	ASSERT_TRUE(check("the module gone, all stay"));
	ASSERT_EQ(0, load());
	ASSERT_TRUE(check("the module again"));
	for (int i = TRACERS - 1; i >= 0; i--) {
		if (tracers[i].attached)
			detach(&tracers[i]);
	}
	ASSERT_TRUE(check("all gone in reverse"));
}

TEST_F(all, in_random_order)
{
	const char *given = getenv("FORKGATE_SEED");
	unsigned int seed = given ? strtoul(given, NULL, 0) : (unsigned int)now_ms();
	char when[60];
	int i;

	printf("# FORKGATE_SEED=%u\n", seed);
	for (int n = 0; n < 40; n++) {
		i = rand_r(&seed) % (TRACERS + 4);
		if (i >= TRACERS) {
			snprintf(when, sizeof(when), "%d: %s", n,
				 forkgate_loaded() ? "unload" : "load");
			ASSERT_EQ(0, forkgate_loaded() ? forkgate_unload_idle() : load())
				TH_LOG("%s", when);
		} else {
			snprintf(when, sizeof(when), "%d: %s", n, tracers[i].name);
			if (tracers[i].attached)
				detach(&tracers[i]);
			else if (!conflict(&tracers[i]))
				attach(&tracers[i]);
		}
		if (n % 4 == 3)
			ASSERT_TRUE(check(when));
	}
}

FIXTURE(soak)
{
	const char *going;
};

FIXTURE_SETUP(soak)
{
	self->going = getenv("FORKGATE_SOAK");
	if (!self->going)
		SKIP(return, "FORKGATE_SOAK names a file that is there meanwhile");
}

FIXTURE_TEARDOWN(soak)
{
	for (int i = 0; i < TRACERS; i++) {
		if (tracers[i].attached)
			detach(&tracers[i]);
	}
}

/* Beside others that fork, load the module and take processors away: see ../soak/run */
TEST_F_TIMEOUT(soak, switched_on_and_off, 100000)
{
	unsigned int seed = now_ms(), times = 0;
	int ret;

	while (!access(self->going, F_OK)) {
		struct tracer *t = &tracers[rand_r(&seed) % TRACERS];

		if (t->attached) {
			detach(t);
		} else if (!conflict(t)) {
			ret = attach(t);
			times += !ret;
			/* ENODEV: the processor has just gone. */
			ASSERT_TRUE(!ret || ret == -EOPNOTSUPP || ret == -ENODEV)
				TH_LOG("attach %s: %s", t->name, strerror(-ret));
		}
		for (int i = rand_r(&seed) % 200; i; i--)
			wait_tick(0);
	}
	printf("# switched on %u times\n", times);
	EXPECT_LT(0, times);
}

TEST_HARNESS_MAIN
