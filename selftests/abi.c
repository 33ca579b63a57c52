// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 13: unprivileged and harmless. Here: the shape of the ABI (sizes,
 * offsets, structures that grow), both ways to make a call, and one test for
 * every error of every call, with one thing wrong at a time. And that nothing
 * written into the shared memory makes the kernel trust it.
 */
#include "test/harness.h"

#include <sys/stat.h>

#define AT(type, field, offset)						\
	_Static_assert(offsetof(struct forkgate_##type, field) == (offset),	\
		       #type "." #field)

_Static_assert(FORKGATE_UNIT_SIZE == 4096, "unit size");
_Static_assert(FORKGATE_SLOT_SIZE == 64, "slot size");
_Static_assert(FORKGATE_UNIT_SLOTS == 63, "slots of a unit");
_Static_assert(FORKGATE_SLOTS == 32256, "slots");
_Static_assert(FORKGATE_MAP_SIZE == 2 * 1024 * 1024, "map size");
_Static_assert(FORKGATE_SLOT_OFFSET(0) == 64, "first slot");
_Static_assert(FORKGATE_SLOT_OFFSET(62) == 4096 - 64, "last slot of the first unit");
_Static_assert(FORKGATE_SLOT_OFFSET(63) == 4096 + 64, "first slot of the second unit");
_Static_assert(FORKGATE_SLOT_OFFSET(FORKGATE_SLOTS - 1) == FORKGATE_MAP_SIZE - 64, "last slot");
_Static_assert(sizeof(struct forkgate_header) == 64, "header");
AT(header, abi, 0);
AT(header, copy, 4);
AT(header, closed, 8);
_Static_assert(sizeof(struct forkgate_slot) == 64, "slot");
AT(slot, depth, 0);
AT(slot, site, 8);
AT(slot, label_site, 16);
AT(slot, label, 24);
AT(slot, tid, 48);
AT(slot, outcome, 52);
_Static_assert(sizeof(struct forkgate_query) == 24, "query");
AT(query, map_size, 16);
_Static_assert(sizeof(struct forkgate_register) == 16, "register");
AT(register, offset, 8);
_Static_assert(sizeof(struct forkgate_enter) == 16, "enter");
AT(enter, levels, 8);
_Static_assert(sizeof(struct forkgate_leave) == 8, "leave");
_Static_assert(sizeof(struct forkgate_prepare) == 24, "prepare");
AT(prepare, timeout, 8);
AT(prepare, attempt, 16);
AT(prepare, outcome, 20);
_Static_assert(sizeof(struct forkgate_policy) == 40, "policy");
AT(policy, on_timeout, 32);
_Static_assert(sizeof(struct forkgate_holder) == 48, "holder");
AT(holder, site, 16);
AT(holder, label, 24);
_Static_assert(sizeof(struct forkgate_state) == 112, "state");
AT(state, wait_ns, 32);
AT(state, bypasses, 104);
_Static_assert(sizeof(struct forkgate_health) == 32, "health");

TEST(device_is_open_to_all)
{
	struct stat st;

	ASSERT_EQ(0, stat(DEVICE, &st));
	EXPECT_TRUE(S_ISCHR(st.st_mode));
	EXPECT_EQ(0666, st.st_mode & 07777);
}

TEST(query_needs_no_mapping)
{
	struct forkgate_query query = {};

	ASSERT_EQ(0, gate_open());
	ASSERT_EQ(0, gate_call(FORKGATE_IOC_QUERY, &query));
	EXPECT_EQ(FORKGATE_ABI, query.abi);
	EXPECT_EQ(FORKGATE_SLOTS, query.slots);
	EXPECT_EQ(FORKGATE_SLOT_SIZE, query.slot_size);
	EXPECT_EQ((uint64_t)FORKGATE_MAP_SIZE, query.map_size);
	EXPECT_EQ(FORKGATE_FEATURE_MSYNC, query.features & FORKGATE_FEATURE_MSYNC);
	EXPECT_EQ(0, query.features & ~(FORKGATE_FEATURE_MSYNC | FORKGATE_FEATURE_DEBUG));
}

TEST(health_needs_no_mapping)
{
	struct forkgate_health health = { .pad = 1 };

	ASSERT_EQ(0, gate_open());
	ASSERT_EQ(0, gate_call(FORKGATE_IOC_HEALTH, &health));
	EXPECT_EQ(1, health.armed);
	EXPECT_EQ(0, health.pad);
}

TEST(any_access_mode_will_do_for_calls)
{
	struct forkgate_query query = {};
	int fd;

	fd = open(DEVICE, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, ioctl(fd, FORKGATE_IOC_QUERY, &query));
	EXPECT_EQ(FORKGATE_ABI, query.abi);
}

TEST(header_is_as_documented)
{
	unsigned int i;

	ASSERT_EQ(0, gate_open());
	ASSERT_EQ(0, gate_map());
	EXPECT_EQ(FORKGATE_ABI, gate.head->abi);
	EXPECT_EQ(0, gate.head->copy);
	EXPECT_EQ(0, gate.head->closed);
	for (i = 0; i < ARRAY_SIZE(gate.head->reserved); i++)
		EXPECT_EQ(0, gate.head->reserved[i]);
}

/*
 * Without a mapping
 */

FIXTURE(unmapped) {
};

FIXTURE_VARIANT(unmapped) {
	unsigned long request;
};

#define UNMAPPED(name, number)						\
	FIXTURE_VARIANT_ADD(unmapped, name) { .request = number }

UNMAPPED(REGISTER, FORKGATE_IOC_REGISTER);
UNMAPPED(UNREGISTER, FORKGATE_IOC_UNREGISTER);
UNMAPPED(ENTER, FORKGATE_IOC_ENTER);
UNMAPPED(LEAVE, FORKGATE_IOC_LEAVE);
UNMAPPED(PREPARE, FORKGATE_IOC_PREPARE);
UNMAPPED(RELEASE, FORKGATE_IOC_RELEASE);
UNMAPPED(POLICY_GET, FORKGATE_IOC_POLICY_GET);
UNMAPPED(POLICY_SET, FORKGATE_IOC_POLICY_SET);
UNMAPPED(STATE, FORKGATE_IOC_STATE);

FIXTURE_SETUP(unmapped)
{
	ASSERT_EQ(0, gate_open());
}

FIXTURE_TEARDOWN(unmapped)
{
}

/* The argument is good, for whatever call: only the mapping is missing. */
TEST_F(unmapped, enxio)
{
	union {
		struct forkgate_register reg;
		struct forkgate_enter enter;
		struct forkgate_leave leave;
		struct forkgate_prepare prepare;
		struct forkgate_policy policy;
		struct forkgate_state state;
	} arg = {};

	if (variant->request == FORKGATE_IOC_ENTER)
		arg.enter = (struct forkgate_enter){ MEMORY, 0, { 1, 0 } };
	else if (variant->request == FORKGATE_IOC_LEAVE)
		arg.leave.domains = MEMORY;
	else if (variant->request == FORKGATE_IOC_PREPARE)
		arg.prepare.domains = MEMORY;
	EXPECT_EQ(-ENXIO, gate_call(variant->request, &arg));
}

/*
 * Every call and its errors, by ioctl and by msync
 */

FIXTURE(call) {
};

FIXTURE_VARIANT(call) {
	bool msync;
};

FIXTURE_VARIANT_ADD(call, ioctl) { .msync = false };
FIXTURE_VARIANT_ADD(call, msync) { .msync = true };

FIXTURE_SETUP(call)
{
	ASSERT_LE(0, gate_setup());
	gate.msync = variant->msync;
	if (gate.msync) {
		/* Neither the descriptor nor its number is needed. */
		close(gate.fd);
		gate.fd = -1;
	}
}

FIXTURE_TEARDOWN(call)
{
}

TEST_F(call, unknown_number)
{
	EXPECT_EQ(-ENOTTY, gate_call(_IO(FORKGATE_IOC_TYPE, 200), NULL));
}

TEST_F(call, unknown_type)
{
	EXPECT_EQ(-ENOTTY, gate_call(_IOR(FORKGATE_IOC_TYPE + 1, 0, struct forkgate_query), NULL));
}

TEST_F(call, query)
{
	struct forkgate_query query = {};

	EXPECT_EQ(0, gate_call(FORKGATE_IOC_QUERY, &query));
	EXPECT_EQ((uint64_t)FORKGATE_MAP_SIZE, query.map_size);
}

TEST_F(call, health)
{
	struct forkgate_health health = {};

	EXPECT_EQ(0, gate_call(FORKGATE_IOC_HEALTH, &health));
	EXPECT_EQ(1, health.armed);
}

#define BAD_POINTER	((void *)8)

#define EFAULT_TEST(name)						\
	TEST_F(call, name##_efault)					\
	{								\
		EXPECT_EQ(-EFAULT, gate_call(FORKGATE_IOC_##name, BAD_POINTER));	\
		EXPECT_EQ(0, gate_state().forkers);			\
		EXPECT_EQ(0, slot->depth[0] | slot->depth[1]);		\
	}

EFAULT_TEST(QUERY)
EFAULT_TEST(REGISTER)
EFAULT_TEST(ENTER)
EFAULT_TEST(LEAVE)
EFAULT_TEST(PREPARE)
EFAULT_TEST(POLICY_GET)
EFAULT_TEST(POLICY_SET)
EFAULT_TEST(STATE)
EFAULT_TEST(HEALTH)

/* What can be read but not written: refused before anything changes */
static void *read_only(const void *data, size_t size)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memcpy(page, data, size);
	mprotect(page, 4096, PROT_READ);
	return page;
}

TEST_F(call, REGISTER_result_efault)
{
	struct forkgate_register reg = {};
	void *page = read_only(&reg, sizeof(reg));

	ASSERT_EQ(0, gate_unregister());
	EXPECT_EQ(-EFAULT, gate_call(FORKGATE_IOC_REGISTER, page));
	EXPECT_EQ(0, gate_state().threads);
}

TEST_F(call, PREPARE_result_efault)
{
	struct forkgate_prepare prepare = { .domains = BOTH };
	void *page = read_only(&prepare, sizeof(prepare));

	EXPECT_EQ(-EFAULT, gate_call(FORKGATE_IOC_PREPARE, page));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(-ENOENT, gate_release());
}

/* REGISTER */

TEST_F(call, REGISTER_flags)
{
	struct forkgate_register reg = { .flags = 1 };

	EXPECT_EQ(-EINVAL, gate_call(FORKGATE_IOC_REGISTER, &reg));
}

/* UNREGISTER */

TEST_F(call, UNREGISTER_unregistered)
{
	ASSERT_EQ(0, gate_unregister());
	EXPECT_EQ(-ESRCH, gate_unregister());
}

TEST_F(call, UNREGISTER_inside_memory)
{
	ASSERT_EQ(0, gate_enter(MEMORY));
	EXPECT_EQ(-EBUSY, gate_unregister());
	ASSERT_EQ(0, gate_leave(MEMORY));
	EXPECT_EQ(0, gate_unregister());
}

TEST_F(call, UNREGISTER_inside_files)
{
	ASSERT_EQ(0, gate_enter(FILES));
	EXPECT_EQ(-EBUSY, gate_unregister());
	ASSERT_EQ(0, gate_leave(FILES));
	EXPECT_EQ(0, gate_unregister());
}

TEST_F(call, UNREGISTER_with_ticket)
{
	ASSERT_EQ(0, gate_prepare(BOTH));
	EXPECT_EQ(-EBUSY, gate_unregister());
	ASSERT_EQ(0, gate_release());
	EXPECT_EQ(0, gate_unregister());
}

/* ENTER */

static long enter_call(unsigned int domains, unsigned int flags, unsigned int memory,
		       unsigned int files)
{
	struct forkgate_enter enter = {
		.domains = domains,
		.flags = flags,
		.levels = { memory, files },
	};

	return gate_call(FORKGATE_IOC_ENTER, &enter);
}

TEST_F(call, ENTER_no_domain)
{
	EXPECT_EQ(-EINVAL, enter_call(0, 0, 0, 0));
}

TEST_F(call, ENTER_unknown_domain)
{
	EXPECT_EQ(-EINVAL, enter_call(MEMORY | 4, 0, 1, 0));
	EXPECT_EQ(0, slot->depth[0]);
}

TEST_F(call, ENTER_unknown_flag)
{
	EXPECT_EQ(-EINVAL, enter_call(MEMORY, 8, 1, 0));
	EXPECT_EQ(0, slot->depth[0]);
}

TEST_F(call, ENTER_flag_of_another_call)
{
	EXPECT_EQ(-EINVAL, enter_call(MEMORY, FORKGATE_TIMED, 1, 0));
	EXPECT_EQ(0, slot->depth[0]);
}

TEST_F(call, ENTER_counted_with_levels)
{
	ASSERT_EQ(0, gate_enter(MEMORY));
	EXPECT_EQ(-EINVAL, enter_call(MEMORY, FORKGATE_COUNTED, 1, 0));
	EXPECT_EQ(1, slot->depth[0]);
	EXPECT_EQ(0, gate_leave(MEMORY));
}

/* As in a call restarted after the levels of an interrupted entry were taken too. */
TEST_F(call, ENTER_levels_of_domain_not_named)
{
	EXPECT_EQ(0, enter_call(MEMORY, 0, 1, 2));
	EXPECT_EQ(1, slot->depth[0]);
	EXPECT_EQ(2, slot->depth[1]);
	slot->depth[0] = 0;
	slot->depth[1] = 0;
}

TEST_F(call, ENTER_without_levels)
{
	EXPECT_EQ(-EINVAL, enter_call(MEMORY, 0, 0, 0));
}

TEST_F(call, ENTER_unregistered)
{
	ASSERT_EQ(0, gate_unregister());
	EXPECT_EQ(-ESRCH, enter_call(MEMORY, 0, 1, 0));
}

TEST_F(call, ENTER_depth_overflow)
{
	slot->depth[0] = ~0u;
	EXPECT_EQ(-EOVERFLOW, enter_call(MEMORY, 0, 1, 0));
	EXPECT_EQ(~0u, slot->depth[0]);
	slot->depth[0] = 0;
}

TEST_F(call, ENTER_levels_overflow)
{
	ASSERT_EQ(0, gate_enter(MEMORY));
	EXPECT_EQ(-EOVERFLOW, enter_call(MEMORY, 0, ~0u, 0));
	EXPECT_EQ(1, slot->depth[0]);
	EXPECT_EQ(0, gate_leave(MEMORY));
}

TEST_F(call, ENTER_adds_levels)
{
	EXPECT_EQ(0, enter_call(BOTH, 0, 3, 2));
	EXPECT_EQ(3, slot->depth[0]);
	EXPECT_EQ(2, slot->depth[1]);
	slot->depth[0] = 0;
	slot->depth[1] = 0;
}

TEST_F(call, ENTER_counted_while_open)
{
	gate_count(MEMORY);
	EXPECT_EQ(0, enter_call(MEMORY, FORKGATE_COUNTED, 0, 0));
	EXPECT_EQ(1, slot->depth[0]);
	EXPECT_EQ(0, gate_leave(MEMORY));
}

/* LEAVE */

static long leave_call(unsigned int domains, unsigned int flags)
{
	struct forkgate_leave leave = { .domains = domains, .flags = flags };

	return gate_call(FORKGATE_IOC_LEAVE, &leave);
}

TEST_F(call, LEAVE_no_domain)
{
	EXPECT_EQ(-EINVAL, leave_call(0, FORKGATE_COUNTED));
}

TEST_F(call, LEAVE_unknown_domain)
{
	EXPECT_EQ(-EINVAL, leave_call(MEMORY | 4, FORKGATE_COUNTED));
}

TEST_F(call, LEAVE_unknown_flag)
{
	EXPECT_EQ(-EINVAL, leave_call(MEMORY, FORKGATE_COUNTED | 8));
}

TEST_F(call, LEAVE_flag_of_another_call)
{
	EXPECT_EQ(-EINVAL, leave_call(MEMORY, FORKGATE_COUNTED | FORKGATE_NONBLOCK));
}

TEST_F(call, LEAVE_unregistered)
{
	ASSERT_EQ(0, gate_unregister());
	EXPECT_EQ(-ESRCH, leave_call(MEMORY, FORKGATE_COUNTED));
}

TEST_F(call, LEAVE_not_entered)
{
	EXPECT_EQ(-EPERM, leave_call(MEMORY, 0));
	EXPECT_EQ(0, slot->depth[0]);
}

TEST_F(call, LEAVE_one_of_two_not_entered)
{
	ASSERT_EQ(0, gate_enter(MEMORY));
	EXPECT_EQ(-EPERM, leave_call(BOTH, 0));
	EXPECT_EQ(1, slot->depth[0]);
	EXPECT_EQ(0, slot->depth[1]);
	EXPECT_EQ(0, gate_leave(MEMORY));
}

TEST_F(call, LEAVE_takes_one_level_of_each)
{
	ASSERT_EQ(0, gate_enter(BOTH));
	ASSERT_EQ(0, gate_enter(BOTH));
	EXPECT_EQ(0, leave_call(BOTH, 0));
	EXPECT_EQ(1, slot->depth[0]);
	EXPECT_EQ(1, slot->depth[1]);
	EXPECT_EQ(0, leave_call(FILES, 0));
	EXPECT_EQ(1, slot->depth[0]);
	EXPECT_EQ(0, slot->depth[1]);
	EXPECT_EQ(0, gate_leave(MEMORY));
}

TEST_F(call, LEAVE_counted_changes_nothing)
{
	ASSERT_EQ(0, gate_enter(MEMORY));
	EXPECT_EQ(0, leave_call(MEMORY, FORKGATE_COUNTED));
	EXPECT_EQ(1, slot->depth[0]);
	EXPECT_EQ(0, gate_leave(MEMORY));
}

/* PREPARE */

TEST_F(call, PREPARE_no_domain)
{
	EXPECT_EQ(-EINVAL, gate_prepare(0));
	EXPECT_EQ(-ENOENT, gate_release());
}

TEST_F(call, PREPARE_unknown_domain)
{
	EXPECT_EQ(-EINVAL, gate_prepare(MEMORY | 4));
	EXPECT_EQ(-ENOENT, gate_release());
}

TEST_F(call, PREPARE_unknown_flag)
{
	EXPECT_EQ(-EINVAL, gate_prepare_with(MEMORY, 8, 0, 0, NULL));
	EXPECT_EQ(-ENOENT, gate_release());
}

TEST_F(call, PREPARE_flag_of_another_call)
{
	EXPECT_EQ(-EINVAL, gate_prepare_with(MEMORY, FORKGATE_COUNTED, 0, 0, NULL));
	EXPECT_EQ(-ENOENT, gate_release());
}

TEST_F(call, PREPARE_attempt_too_high)
{
	EXPECT_EQ(-EINVAL, gate_prepare_with(MEMORY, 0, 0, 33, NULL));
	EXPECT_EQ(-ENOENT, gate_release());
}

TEST_F(call, PREPARE_highest_attempt)
{
	EXPECT_EQ(0, gate_prepare_with(MEMORY, 0, 0, 32, NULL));
	EXPECT_EQ(0, gate_release());
}

TEST_F(call, PREPARE_timeout_without_flag)
{
	EXPECT_EQ(-EINVAL, gate_prepare_with(MEMORY, 0, 1, 0, NULL));
	EXPECT_EQ(-ENOENT, gate_release());
}

TEST_F(call, PREPARE_twice)
{
	ASSERT_EQ(0, gate_prepare(BOTH));
	EXPECT_EQ(-EALREADY, gate_prepare(BOTH));
	EXPECT_EQ(-EALREADY, gate_prepare(MEMORY));
	EXPECT_EQ(1, gate_state().forkers);
	EXPECT_EQ(0, gate_release());
}

/* RELEASE */

TEST_F(call, RELEASE_without_ticket)
{
	EXPECT_EQ(-ENOENT, gate_release());
}

TEST_F(call, RELEASE_twice)
{
	ASSERT_EQ(0, gate_prepare(BOTH));
	ASSERT_EQ(0, gate_release());
	EXPECT_EQ(-ENOENT, gate_release());
}

/* STATE */

TEST_F(call, STATE_holders_efault)
{
	struct forkgate_state state = {
		.holders = (uintptr_t)BAD_POINTER,
		.holders_max = 1,
	};

	ASSERT_EQ(0, gate_enter(MEMORY));
	EXPECT_EQ(-EFAULT, gate_call(FORKGATE_IOC_STATE, &state));
	EXPECT_EQ(0, gate_leave(MEMORY));
}

TEST_F(call, STATE_counts_without_an_array)
{
	struct forkgate_state state = {};

	ASSERT_EQ(0, gate_enter(MEMORY));
	EXPECT_EQ(0, gate_call(FORKGATE_IOC_STATE, &state));
	EXPECT_EQ(1, state.holders_count);
	EXPECT_EQ(1, state.threads);
	EXPECT_EQ(0, gate_leave(MEMORY));
}

/* How a program recognises a file of the device, whoever has its number now */
TEST(file_is_known_by_its_position)
{
	ASSERT_EQ(0, gate_open());
	EXPECT_EQ(FORKGATE_POSITION, lseek(gate.fd, 0, SEEK_CUR));
	EXPECT_EQ(FORKGATE_POSITION, lseek(gate.fd, 5, SEEK_SET));
	EXPECT_EQ(FORKGATE_POSITION, lseek(gate.fd, 0, SEEK_CUR));
}

/*
 * Structures that grow: a call is known by type, direction and number
 */

FIXTURE(size) {
	char *good;
};

FIXTURE_VARIANT(size) {
	unsigned long request;
	bool in;
};

#define SIZE(name, has_input)						\
	FIXTURE_VARIANT_ADD(size, name) {				\
		.request = FORKGATE_IOC_##name,				\
		.in = has_input,					\
	}

SIZE(QUERY, false);
SIZE(REGISTER, true);
SIZE(ENTER, true);
SIZE(LEAVE, true);
SIZE(PREPARE, true);
SIZE(POLICY_GET, false);
SIZE(POLICY_SET, true);
SIZE(STATE, true);
SIZE(HEALTH, false);

/* The request with a structure that is longer, or shorter, by some bytes */
static unsigned long resized(unsigned long request, int bytes)
{
	return _IOC(_IOC_DIR(request), _IOC_TYPE(request), _IOC_NR(request),
		    _IOC_SIZE(request) + bytes);
}

FIXTURE_SETUP(size)
{
	static union {
		char bytes[4096];
		struct forkgate_enter enter;
		struct forkgate_leave leave;
		struct forkgate_prepare prepare;
		struct forkgate_policy policy;
	} arg;

	ASSERT_LE(0, gate_setup());
	self->good = arg.bytes;
	switch (variant->request) {
	case FORKGATE_IOC_ENTER:
		arg.enter = (struct forkgate_enter){ MEMORY, 0, { 1, 0 } };
		break;
	case FORKGATE_IOC_LEAVE:
		arg.leave = (struct forkgate_leave){ MEMORY, FORKGATE_COUNTED };
		break;
	case FORKGATE_IOC_PREPARE:
		arg.prepare.domains = MEMORY;
		break;
	case FORKGATE_IOC_POLICY_SET:
		arg.policy = patient_policy;
		break;
	}
}

FIXTURE_TEARDOWN(size)
{
}

TEST_F(size, exact)
{
	EXPECT_EQ(0, gate_call(variant->request, self->good));
}

TEST_F(size, longer_with_zeroes)
{
	EXPECT_EQ(0, gate_call(resized(variant->request, 8), self->good));
}

TEST_F(size, much_longer_with_zeroes)
{
	EXPECT_EQ(0, gate_call(resized(variant->request, 3000), self->good));
}

TEST_F(size, longer_with_something)
{
	if (!variant->in)
		return;	/* nothing is read */
	self->good[_IOC_SIZE(variant->request) + 7] = 1;
	EXPECT_EQ(-E2BIG, gate_call(resized(variant->request, 8), self->good));
}

TEST_F(size, shorter)
{
	EXPECT_EQ(-EINVAL, gate_call(resized(variant->request, -4), self->good));
}

TEST_F(size, empty)
{
	EXPECT_EQ(-EINVAL, gate_call(resized(variant->request, -_IOC_SIZE(variant->request)),
				     self->good));
}

/* The tail that this module does not know comes back as zeroes or untouched, never as garbage. */
TEST_F(size, longer_leaks_nothing)
{
	const size_t size = _IOC_SIZE(variant->request);
	unsigned int i;

	ASSERT_EQ(0, gate_call(resized(variant->request, 64), self->good));
	for (i = 0; i < 64; i++)
		EXPECT_EQ(0, self->good[size + i]);
}

/*
 * Nothing written into the shared memory is trusted
 */

FIXTURE_WORKERS(scribble, a, b);

/* A slot without an owner does not count, whatever it says. */
TEST_F(scribble, free_slots_are_ignored)
{
	unsigned int n;

	for (n = 0; n < 200; n++) {
		struct forkgate_slot *free = gate_slot(n);

		if (free != slot && free != self->a.slot && free != self->b.slot)
			memset(free, 0x5a, sizeof(*free));
	}
	EXPECT_EQ(0, gate_state().holders_count);
	EXPECT_EQ(0, child_exit(raw_fork(0, child_whole)));
}

/* A thread that takes a slot which others wrote to starts outside. */
TEST_F(scribble, taken_slot_is_clean)
{
	struct worker c;
	unsigned int n, i;

	for (n = 0; n < 200; n++) {
		struct forkgate_slot *free = gate_slot(n);

		if (free != slot && free != self->a.slot && free != self->b.slot)
			memset(free, 0x5a, sizeof(*free));
	}
	ASSERT_EQ(0, worker_new(&c));
	EXPECT_EQ(0, c.slot->depth[0]);
	EXPECT_EQ(0, c.slot->depth[1]);
	EXPECT_EQ(0, c.slot->site);
	EXPECT_EQ(0, c.slot->label_site);
	for (i = 0; i < FORKGATE_LABEL_SIZE; i++)
		EXPECT_EQ(0, c.slot->label[i]);
	EXPECT_EQ(c.tid, c.slot->tid);
	EXPECT_EQ(FORKGATE_OUTCOME_NONE, c.slot->outcome);
	EXPECT_EQ(0, c.slot->reserved);
	EXPECT_EQ(0, child_exit(raw_fork(0, child_whole)));
}

/* The owner of a slot is who registered it, not who its tid says. */
TEST_F(scribble, tid_is_not_read_back)
{
	WRITE_ONCE(self->a.slot->tid, sys_gettid());
	WRITE_ONCE(slot->tid, 1);
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	EXPECT_TRUE(fork_waits(&self->b, &fork_both, 1));
	ASSERT_EQ(0, run(&self->a, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->b));
}

/* "closed" says what is not true: entries ask the kernel, which knows better. */
TEST_F(scribble, closed_is_not_read_back)
{
	WRITE_ONCE(gate.head->closed, ~0u);
	EXPECT_EQ(0, run(&self->a, job_enter, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(BOTH)));
	EXPECT_EQ(0, gate_state().closed);
	EXPECT_EQ(0, child_exit(raw_fork(0, child_whole)));
}

/* "closed" is wiped during a phase: the fork still ends, and the gate opens. */
TEST_F(scribble, wiped_closed_only_harms_the_process)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	EXPECT_TRUE(fork_waits(&self->b, &fork_both, 1));
	WRITE_ONCE(gate.head->closed, 0);
	EXPECT_EQ(BOTH, gate_state().closed);
	ASSERT_EQ(0, run(&self->a, job_uncount, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->a, job_leave, ARG(FILES)));
	/* "Closed" said not to tell the kernel; so tell it now. */
	WRITE_ONCE(gate.head->closed, BOTH);
	ASSERT_EQ(0, run(&self->a, job_wake, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_EQ(0, gate.head->closed);
}

static struct {
	bool stop;
} scribbler;

static long job_scribble(void *unused)
{
	const size_t words = 2 * FORKGATE_UNIT_SIZE / 4;
	unsigned int *map = (unsigned int *)gate.head;
	unsigned int random = 1;

	while (!READ_ONCE(scribbler.stop)) {
		random = random * 1103515245 + 12345;
		WRITE_ONCE(map[(random >> 8) % words], random & 0x10000 ? random : 0);
	}
	return 0;
}

/*
 * One thread writes garbage everywhere while others enter and fork: whatever
 * comes back, the kernel survives.
 */
TEST_F(scribble, garbage_everywhere)
{
	struct forkgate_policy policy = {
		.patience = NSEC_PER_MSEC,
		.ticket_hold = NSEC_PER_MSEC,
		.timeout = 5 * NSEC_PER_MSEC,
		.backstop = 5 * NSEC_PER_MSEC,
	};
	struct forkgate_holder holders[64];
	struct forkgate_state state;
	int made = 0;
	pid_t pid;
	int i;

	ASSERT_EQ(0, gate_set_policy(&policy));
	start(&self->a, job_scribble, NULL);
	for (i = 0; i < 300; i++) {
		gate_enter_by_call(i % 3 + 1, FORKGATE_NONBLOCK);
		memset(&state, 0, sizeof(state));
		state.holders = (uintptr_t)holders;
		state.holders_max = ARRAY_SIZE(holders);
		EXPECT_EQ(0, gate_call(FORKGATE_IOC_STATE, &state));
		pid = raw_fork(0, child_nothing);
		if (pid > 0) {
			EXPECT_EQ(0, child_exit(pid));
			made++;
		} else {
			EXPECT_EQ(-EAGAIN, pid);
		}
		gate_leave_by_call(i % 3 + 1);
		if (!gate_prepare(BOTH))
			gate_release();
	}
	WRITE_ONCE(scribbler.stop, true);
	EXPECT_EQ(0, finish(&self->a));
	/* Mend what was broken: the gate still works. */
	for (i = 0; i < 2 * FORKGATE_UNIT_SLOTS; i++)
		memset(gate_slot(i), 0, sizeof(struct forkgate_slot));
	EXPECT_EQ(0, child_exit(raw_fork(0, child_nothing)));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate_state().closed);
	EXPECT_EQ(0, gate_state().blocked);
}

TEST_HARNESS_MAIN
