// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 9: the last unmap ends the gate; all that wait for it go on.
 * Rule 10: the child's mapping is at the same address and is its own.
 * Rule 13: no way to map, split, move, copy or pass on the mapping reaches
 * another process's gate or makes a second kind of gate.
 */
#include "test/harness.h"

#include <linux/userfaultfd.h>
#include <sys/socket.h>

/* gate_works - a fork waits for a section */
static bool gate_works(struct worker *holder, struct worker *forker)
{
	bool waits;

	if (run(holder, job_hold, ARG(BOTH)))
		return false;
	waits = fork_waits(forker, &fork_both, 1);
	return !run(holder, job_drop, ARG(BOTH)) && !finish_fork(forker) && waits;
}

FIXTURE(map) {
	int fd;
};

FIXTURE_SETUP(map)
{
	self->fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(map)
{
}

static int map_error(int fd, size_t size, int prot, int flags, off_t offset)
{
	void *map = mmap(NULL, size, prot, flags, fd, offset);

	if (map == MAP_FAILED)
		return errno;
	munmap(map, size);
	return 0;
}

TEST_F(map, whole)
{
	EXPECT_EQ(0, map_error(self->fd, FORKGATE_MAP_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0));
}

/* A process of up to 63 threads needs one unit: the header's line and its slots. */
TEST_F(map, one_unit)
{
	struct worker workers[FORKGATE_UNIT_SLOTS - 1];
	int i;

	gate.fd = self->fd;
	gate.head = map_device(self->fd, FORKGATE_UNIT_SIZE);
	ASSERT_NE(MAP_FAILED, gate.head);
	ASSERT_LE(0, gate_register());
	ASSERT_EQ(0, gate_set_policy(&patient_policy));
	ASSERT_EQ(0, workers_new(workers, ARRAY_SIZE(workers)));
	for (i = 0; i < ARRAY_SIZE(workers); i++)
		EXPECT_EQ(gate.head, slot_header(workers[i].slot));
	EXPECT_TRUE(gate_works(&workers[0], &workers[ARRAY_SIZE(workers) - 1]));
	EXPECT_TRUE(gate_works(&workers[ARRAY_SIZE(workers) - 1], &workers[0]));
}

TEST_F(map, private)
{
	EXPECT_EQ(EINVAL, map_error(self->fd, FORKGATE_MAP_SIZE, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE, 0));
}

TEST_F(map, private_read_only)
{
	EXPECT_EQ(EINVAL, map_error(self->fd, FORKGATE_MAP_SIZE, PROT_READ, MAP_PRIVATE, 0));
}

TEST_F(map, executable)
{
	EXPECT_NE(0, map_error(self->fd, FORKGATE_MAP_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
			       MAP_SHARED, 0));
}

TEST_F(map, offset)
{
	EXPECT_EQ(EINVAL, map_error(self->fd, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, 4096));
}

TEST_F(map, too_long)
{
	EXPECT_EQ(EINVAL, map_error(self->fd, FORKGATE_MAP_SIZE + 4096, PROT_READ | PROT_WRITE,
				    MAP_SHARED, 0));
}

TEST_F(map, descriptor_without_write)
{
	int fd = open(DEVICE, O_RDONLY | O_CLOEXEC);

	ASSERT_LE(0, fd);
	EXPECT_EQ(EACCES, map_error(fd, FORKGATE_MAP_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0));
}

TEST_F(map, populate)
{
	EXPECT_EQ(0, map_error(self->fd, FORKGATE_MAP_SIZE, PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_POPULATE, 0));
}

TEST_F(map, outlives_its_descriptor)
{
	gate.fd = self->fd;
	ASSERT_EQ(0, gate_map());
	close(self->fd);
	gate.msync = true;
	ASSERT_LE(0, gate_register());
	EXPECT_EQ(1, gate_state().threads);
	EXPECT_EQ(0, child_exit(raw_fork(0, child_whole)));
}

/*
 * What may not be done to the mapping
 */

FIXTURE_WORKERS(mapped, a, b);

static void *inside(size_t offset)
{
	return (char *)gate.head + offset;
}

TEST_F(mapped, mprotect_exec)
{
	EXPECT_EQ(-1, mprotect(gate.head, FORKGATE_MAP_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC));
	EXPECT_EQ(EACCES, errno);
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

TEST_F(mapped, mprotect_part)
{
	EXPECT_EQ(-1, mprotect(inside(4096), 4096, PROT_READ));
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

TEST_F(mapped, mprotect_first_page)
{
	EXPECT_EQ(-1, mprotect(gate.head, 4096, PROT_READ));
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

/* Its own business: the slots come back when the protection does. */
TEST_F(mapped, mprotect_whole)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, mprotect(gate.head, FORKGATE_MAP_SIZE, PROT_NONE));
	EXPECT_EQ(1, gate_state().holders_count);
	ASSERT_EQ(0, mprotect(gate.head, FORKGATE_MAP_SIZE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(1, self->a.slot->depth[0]);
	ASSERT_EQ(0, run(&self->a, job_leave, ARG(MEMORY)));
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

TEST_F(mapped, munmap_part)
{
	EXPECT_EQ(-1, munmap(inside(FORKGATE_MAP_SIZE - 4096), 4096));
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

TEST_F(mapped, munmap_first_page)
{
	EXPECT_EQ(-1, munmap(gate.head, 4096));
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

TEST_F(mapped, map_over_part)
{
	EXPECT_EQ(MAP_FAILED, mmap(inside(8192), 4096, PROT_READ,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

TEST_F(mapped, mremap_move)
{
	void *to = mmap(NULL, FORKGATE_MAP_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, to);
	EXPECT_EQ(MAP_FAILED, mremap(gate.head, FORKGATE_MAP_SIZE, FORKGATE_MAP_SIZE,
				     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

TEST_F(mapped, mremap_grow)
{
	EXPECT_EQ(MAP_FAILED, mremap(gate.head, FORKGATE_MAP_SIZE, FORKGATE_MAP_SIZE + 4096,
				     MREMAP_MAYMOVE));
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

TEST_F(mapped, mremap_shrink)
{
	EXPECT_EQ(MAP_FAILED, mremap(gate.head, FORKGATE_MAP_SIZE, 8192, 0));
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

TEST_F(mapped, mremap_duplicate)
{
	EXPECT_EQ(MAP_FAILED, mremap(gate.head, 0, FORKGATE_MAP_SIZE, MREMAP_MAYMOVE));
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

TEST_F(mapped, mremap_dontunmap)
{
	EXPECT_EQ(MAP_FAILED, mremap(gate.head, FORKGATE_MAP_SIZE, FORKGATE_MAP_SIZE,
				     MREMAP_MAYMOVE | MREMAP_DONTUNMAP));
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

/* The gate owns the pages: dropping the entries of the page table loses nothing. */
TEST_F(mapped, madvise_dontneed_loses_nothing)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	madvise(gate.head, FORKGATE_MAP_SIZE, MADV_DONTNEED);
	EXPECT_EQ(FORKGATE_ABI, gate.head->abi);
	EXPECT_EQ(1, self->a.slot->depth[0]);
	EXPECT_EQ(1, gate_state().holders_count);
	ASSERT_EQ(0, run(&self->a, job_leave, ARG(MEMORY)));
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

TEST_F(mapped, madvise_remove)
{
	EXPECT_EQ(-1, madvise(gate.head, FORKGATE_MAP_SIZE, MADV_REMOVE));
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

TEST_F(mapped, mlock_is_harmless)
{
	mlock(gate.head, FORKGATE_MAP_SIZE);
	mlockall(MCL_CURRENT | MCL_FUTURE);
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

/* A monitor could stop a fork, or a thread in a section, at a fault. */
TEST_F(mapped, userfaultfd_refused)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (uintptr_t)gate.head, FORKGATE_MAP_SIZE },
	};
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		SKIP(return, "no userfaultfd: %s", strerror(errno));
	ASSERT_EQ(0, ioctl(fd, UFFDIO_API, &api));
	reg.mode = UFFDIO_REGISTER_MODE_MISSING;
	EXPECT_EQ(-1, ioctl(fd, UFFDIO_REGISTER, &reg));
	reg.mode = UFFDIO_REGISTER_MODE_WP;
	EXPECT_EQ(-1, ioctl(fd, UFFDIO_REGISTER, &reg));
}

/* vm_flags - the VmFlags line of the mapping at an address */
static const char *vm_flags(void *address)
{
	static char text[262144];
	char start[40], *found, *end;

	snprintf(start, sizeof(start), "%lx-", (unsigned long)address);
	if (read_file("/proc/self/smaps", text, sizeof(text)) <= 0)
		return "";
	found = strstr(text, start);
	found = found ? strstr(found, "VmFlags:") : NULL;
	if (!found)
		return "";
	end = strchr(found, '\n');
	if (end)
		*end = '\0';
	return found;
}

TEST_F(mapped, flags_of_the_mapping)
{
	const char *flags = vm_flags(gate.head);

	TH_LOG("%s", flags);
	EXPECT_NE(NULL, strstr(flags, " sh"));	/* shared */
	EXPECT_NE(NULL, strstr(flags, " de"));	/* cannot expand */
	EXPECT_NE(NULL, strstr(flags, " dd"));	/* not in core dumps */
	EXPECT_EQ(NULL, strstr(flags, " dc"));	/* the child does get one */
	EXPECT_EQ(NULL, strstr(flags, " ex"));
	EXPECT_EQ(NULL, strstr(flags, " me"));	/* never executable */
}

TEST_F(mapped, mapping_is_named_after_the_device)
{
	static char text[65536];

	ASSERT_LT(0, read_file("/proc/self/maps", text, sizeof(text)));
	EXPECT_NE(NULL, strstr(text, DEVICE "\n"));
}

/* Other eyes on the shared pages: no way past the rules, and no harm. */
TEST_F(mapped, proc_mem_is_harmless)
{
	unsigned int word = 0;
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);

	ASSERT_LE(0, fd);
	pread(fd, &word, sizeof(word), (uintptr_t)&gate.head->abi);
	word = 0;
	pwrite(fd, &word, sizeof(word), (uintptr_t)&slot->depth[0]);
	close(fd);
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

/*
 * More than one mapping
 */

TEST_F(mapped, second_mapping_is_the_same_gate)
{
	struct forkgate_header *second = map_device(gate.fd, FORKGATE_MAP_SIZE);
	const size_t offset = (char *)self->a.slot - (char *)gate.head;
	struct forkgate_slot *twin;

	ASSERT_NE(MAP_FAILED, second);
	twin = (void *)((char *)second + offset);
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	EXPECT_EQ(1, twin->depth[0]);
	EXPECT_EQ(self->a.tid, twin->tid);
	EXPECT_EQ(3, gate_state().threads);
	ASSERT_TRUE(fork_waits(&self->b, &fork_both, 1));
	EXPECT_EQ(BOTH, second->closed);
	ASSERT_EQ(0, run(&self->a, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->b));
}

TEST_F(mapped, second_descriptor_is_the_same_gate)
{
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	struct forkgate_header *second;
	struct forkgate_state state = {};

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, ioctl(fd, FORKGATE_IOC_STATE, &state));
	EXPECT_EQ(3, state.threads);
	second = map_device(fd, FORKGATE_MAP_SIZE);
	ASSERT_NE(MAP_FAILED, second);
	WRITE_ONCE(self->a.slot->site, 4711);
	EXPECT_EQ(4711, ((struct forkgate_slot *)((char *)second + ((char *)self->a.slot -
						  (char *)gate.head)))->site);
}

TEST_F(mapped, unmapping_one_of_two_ends_nothing)
{
	struct forkgate_header *second = map_device(gate.fd, FORKGATE_MAP_SIZE);

	ASSERT_NE(MAP_FAILED, second);
	ASSERT_EQ(0, run(&self->a, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->b, &fork_both, 1));
	ASSERT_EQ(0, munmap(second, FORKGATE_MAP_SIZE));
	EXPECT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(3, gate_state().threads);
	ASSERT_EQ(0, run(&self->a, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->b));
}

TEST_F(mapped, child_of_two_mappings)
{
	struct forkgate_header *second = map_device(gate.fd, FORKGATE_MAP_SIZE);
	pid_t pid;

	ASSERT_NE(MAP_FAILED, second);
	pid = raw_fork(0, child_nothing);
	EXPECT_EQ(0, child_exit(pid));
	pid = syscall(__NR_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (!pid) {
		WRITE_ONCE(slot->site, 77);
		if (READ_ONCE(((struct forkgate_slot *)((char *)second + ((char *)slot -
							(char *)gate.head)))->site) != 77)
			_exit(1);
		if (gate_state().threads != 1)
			_exit(2);
		if (munmap(second, FORKGATE_MAP_SIZE) || gate_state().threads != 1)
			_exit(3);
		if (munmap(gate.head, FORKGATE_MAP_SIZE) ||
		    gate_release() != -ENXIO)
			_exit(4);
		_exit(0);
	}
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(3, gate_state().threads);
}

/*
 * The last unmap
 */

static long job_munmap(void *unused)
{
	return gate_unmap();
}

TEST_F(mapped, unmapped_has_no_gate)
{
	ASSERT_EQ(0, gate_unmap());
	EXPECT_EQ(-ENXIO, gate_unregister());
	EXPECT_EQ(-ENXIO, gate_release());
	EXPECT_EQ(0, child_exit(raw_fork(0, child_nothing)));
}

TEST_F(mapped, munmap_lets_a_waiting_fork_go)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->b, &fork_both, 1));
	ASSERT_EQ(0, run(&self->a, job_munmap, NULL));
	EXPECT_EQ(0, finish_fork(&self->b));
}

TEST_F(mapped, munmap_lets_a_waiting_prepare_go)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(BOTH)));
	ASSERT_TRUE(prepare_waits(&self->b, BOTH, 1));
	ASSERT_EQ(0, run(&self->a, job_munmap, NULL));
	EXPECT_EQ(-ENXIO, finish(&self->b));
	EXPECT_EQ(-ENXIO, run(&self->b, job_release, NULL));
}

TEST_F(mapped, munmap_ends_blocked_entries)
{
	ASSERT_EQ(0, gate_prepare(BOTH));
	start(&self->a, job_enter, ARG(MEMORY));
	start(&self->b, job_enter, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 2));
	ASSERT_EQ(0, gate_unmap());
	EXPECT_EQ(-ENXIO, finish(&self->a));
	EXPECT_EQ(-ENXIO, finish(&self->b));
}

TEST_F(mapped, munmap_voids_tickets)
{
	ASSERT_EQ(0, run(&self->a, job_prepare, ARG(BOTH)));
	ASSERT_EQ(0, gate_unmap());
	EXPECT_EQ(-ENXIO, run(&self->a, job_release, NULL));
	ASSERT_EQ(0, gate_map());
	ASSERT_LE(0, run(&self->a, job_register, &self->a));
	EXPECT_EQ(-ENOENT, run(&self->a, job_release, NULL));
}

TEST_F(mapped, mapping_over_the_whole_ends_the_gate)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->b, &fork_both, 1));
	ASSERT_EQ(gate.head, mmap(gate.head, FORKGATE_MAP_SIZE, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_EQ(-ENXIO, gate_release());
}

TEST_F(mapped, mapping_again_makes_a_new_gate)
{
	struct forkgate_policy policy;

	ASSERT_EQ(0, gate_enter(BOTH));
	ASSERT_EQ(0, gate_unmap());
	ASSERT_EQ(0, gate_map());
	EXPECT_EQ(0, gate_state().threads);
	EXPECT_EQ(0, gate_state().forks);
	EXPECT_EQ(-ESRCH, gate_unregister());
	policy = gate_policy();
	EXPECT_EQ(10 * NSEC_PER_SEC, policy.backstop);
	ASSERT_EQ(0, gate_set_policy(&patient_policy));
	ASSERT_LE(0, gate_register());
	EXPECT_EQ(0, slot->depth[0] | slot->depth[1]);
	ASSERT_LE(0, run(&self->a, job_register, &self->a));
	ASSERT_LE(0, run(&self->b, job_register, &self->b));
	EXPECT_TRUE(gate_works(&self->a, &self->b));
}

/*
 * Other processes
 */

/* MADV_DONTFORK: the fork waits all the same, the child has no gate. */
TEST_F(mapped, dontfork)
{
	pid_t pid;

	ASSERT_EQ(0, madvise(gate.head, FORKGATE_MAP_SIZE, MADV_DONTFORK));
	EXPECT_TRUE(gate_works(&self->a, &self->b));
	pid = syscall(__NR_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (!pid) {
		struct forkgate_state state = {};

		if (gate_call(FORKGATE_IOC_STATE, &state) != -ENXIO)
			_exit(1);
		if (raw_fork(0, child_nothing) <= 0)
			_exit(2);
		if (gate_map() || gate_register() < 0)
			_exit(3);
		_exit(slot->depth[0] | slot->depth[1]);
	}
	EXPECT_EQ(0, child_exit(pid));
}

static int send_fd(int socket, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	return sendmsg(socket, &message, 0) == 1 ? 0 : -errno;
}

static int receive_fd(int socket)
{
	char byte, control[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	int fd = -1;

	if (recvmsg(socket, &message, 0) == 1 && CMSG_FIRSTHDR(&message))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	return fd;
}

/*
 * A descriptor that another process opened and mapped: calls concern the
 * caller's memory and no other.
 */
TEST(passed_descriptor)
{
	struct worker a, b;
	int sockets[2];
	char byte;
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct forkgate_state state = {};

		gate.fd = receive_fd(sockets[1]);
		if (gate.fd < 0)
			_exit(1);
		/* The other one has a gate and holds sections of it. */
		if (gate_call(FORKGATE_IOC_STATE, &state) != -ENXIO)
			_exit(2);
		if (gate_prepare(BOTH) != -ENXIO)
			_exit(3);
		if (raw_fork(0, child_nothing) <= 0)
			_exit(4);
		if (gate_map() || gate_register() < 0 || gate_set_policy(&patient_policy))
			_exit(5);
		if (worker_new(&a) || gate_state().threads != 2 || gate_state().holders_count)
			_exit(6);
		/* Forks while the other one is inside, and stays inside while that one forks. */
		if (child_exit(raw_fork(0, child_nothing)))
			_exit(7);
		if (run(&a, job_enter, ARG(BOTH)))
			_exit(8);
		if (write(sockets[1], "", 1) != 1 || read(sockets[1], &byte, 1) != 1)
			_exit(9);
		_exit(gate_state().closed || gate_state().holders_count != 1);
	}
	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, worker_new(&a));
	ASSERT_EQ(0, worker_new(&b));
	ASSERT_EQ(0, run(&a, job_hold, ARG(BOTH)));
	ASSERT_EQ(0, send_fd(sockets[0], gate.fd));
	ASSERT_EQ(1, read(sockets[0], &byte, 1));
	EXPECT_EQ(3, gate_state().threads);
	EXPECT_EQ(1, gate_state().holders_count);
	ASSERT_EQ(0, run(&a, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, run(&b, job_fork, &fork_both) > 0 ? 0 : -1);
	EXPECT_TRUE(gate_works(&a, &b));
	ASSERT_EQ(1, write(sockets[0], "", 1));
	EXPECT_EQ(0, child_exit(pid));
}

/* The parent's gate is not what the inherited descriptor is about either. */
TEST_F(mapped, inherited_descriptor)
{
	pid_t pid;

	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->a, job_leave, ARG(MEMORY)));
	pid = syscall(__NR_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (!pid) {
		WRITE_ONCE(gate_slot(0)->site, 4711);
		if (gate_prepare(BOTH) || gate_state().forkers != 1)
			_exit(1);
		_exit(0);
	}
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_NE(4711, gate_slot(0)->site);
}

TEST_HARNESS_MAIN
