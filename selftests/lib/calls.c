// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a program asks its gate: policy, state, copy, and prepares that do not
 * wait. Runs with the module's gate, with the library's own and without one, and
 * must not know which of the two gates it has, but where only one can say
 * something.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <sys/epoll.h>

#include "jobs.h"

#define MS(ms)	((ms) * NSEC_PER_MSEC)

static const struct forkgate_policy other_policy = {
	.patience = MS(20),
	.ticket_hold = MS(300),
	.timeout = MS(4000),
	.backstop = MS(5000),
	.on_timeout = FORKGATE_PROCEED,
};

static struct forkgate_state state_now(void)
{
	struct forkgate_state state = {};

	if (forkgate_state(&state))
		memset(&state, 0xff, sizeof(state));
	return state;
}

static int set_limits(uint64_t hold_ms, uint64_t timeout_ms)
{
	struct forkgate_policy policy = patient_policy;

	policy.ticket_hold = MS(hold_ms);
	policy.timeout = timeout_ms ? MS(timeout_ms) : FORKGATE_FOREVER;
	return forkgate_policy_set(&policy);
}

/* What poll() says of a descriptor within that time; 0: nothing */
static int polled(int fd, int ms)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	return poll(&poll_fd, 1, ms) > 0 ? poll_fd.revents : 0;
}

static long do_enter_labelled(void *domains)
{
	int err = forkgate_enter((uintptr_t)domains);

	forkgate_label("busy here");
	return err;
}

FIXTURE(calls) {
	struct worker a;
};

FIXTURE_SETUP(calls)
{
	if (forkgate_init(0))
		SKIP(return, "no gate");
	ASSERT_EQ(0, forkgate_policy_set(&patient_policy));
	ASSERT_EQ(0, worker_spawn(&self->a));
}

FIXTURE_TEARDOWN(calls)
{
}

/*
 * Policy
 */

TEST(policy_defaults)
{
	struct forkgate_policy policy = { .pad = 1 };

	if (forkgate_init(0))
		SKIP(return, "no gate");
	ASSERT_EQ(0, forkgate_policy_get(&policy));
	EXPECT_EQ(MS(100), policy.patience);
	EXPECT_EQ(MS(100), policy.ticket_hold);
	EXPECT_EQ(FORKGATE_FOREVER, policy.timeout);
	EXPECT_EQ(MS(10000), policy.backstop);
	EXPECT_EQ(FORKGATE_FAIL, policy.on_timeout);
	EXPECT_EQ(0, policy.pad);
}

static int policy_is(const struct forkgate_policy *wanted)
{
	struct forkgate_policy policy;

	return !forkgate_policy_get(&policy) && !memcmp(&policy, wanted, sizeof(policy));
}

TEST_F(calls, policy_is_what_was_set)
{
	pid_t pid;

	ASSERT_EQ(0, forkgate_policy_set(&other_policy));
	EXPECT_TRUE(policy_is(&other_policy));
	pid = fork();
	if (!pid)
		_exit(policy_is(&other_policy) ? 0 : 1);
	EXPECT_EQ(0, child_exit(pid));
}

#define EXPECT_INVALID(field, value) ({					\
	struct forkgate_policy policy = patient_policy;			\
									\
	policy.field = (value);						\
	EXPECT_EQ(EINVAL, forkgate_policy_set(&policy));		\
	EXPECT_TRUE(policy_is(&patient_policy)); })

TEST_F(calls, policy_invalid)
{
	EXPECT_INVALID(patience, FORKGATE_TIME_MAX + 1);
	EXPECT_INVALID(ticket_hold, FORKGATE_TIME_MAX + 1);
	EXPECT_INVALID(ticket_hold, FORKGATE_FOREVER);
	EXPECT_INVALID(timeout, FORKGATE_TIME_MAX + 1);
	EXPECT_INVALID(backstop, FORKGATE_TIME_MAX + 1);
	EXPECT_INVALID(on_timeout, 2);
	EXPECT_INVALID(pad, 1);
}

/*
 * State
 */

TEST_F(calls, state_names_who_is_inside)
{
	struct forkgate_holder holders[4] = {};
	struct forkgate_state state = {
		.holders = (uintptr_t)holders,
		.holders_max = 4,
	};

	ASSERT_EQ(0, run(&self->a, do_enter_labelled, ARG(FILES)));
	ASSERT_EQ(0, forkgate_state(&state));
	EXPECT_EQ(1, state.holders_count);
	EXPECT_EQ(2, state.threads);
	EXPECT_EQ(0, state.forkers);
	EXPECT_EQ(self->a.tid, holders[0].tid);
	EXPECT_EQ(FILES, holders[0].domains);
	EXPECT_EQ(0, holders[0].depth[0]);
	EXPECT_EQ(1, holders[0].depth[1]);
	EXPECT_NE(0, holders[0].site);
	EXPECT_STREQ("busy here", holders[0].label);
	EXPECT_EQ(0, holders[1].tid);

	EXPECT_EQ(0, run(&self->a, do_leave, ARG(FILES)));
	EXPECT_EQ(0, state_now().holders_count);
}

TEST_F(calls, state_counts_forks)
{
	uint64_t forks = state_now().forks;

	EXPECT_EQ(0, child_exit(fork() ?: (_exit(0), 0)));
	EXPECT_EQ(forks + 1, state_now().forks);
}

/*
 * Copy
 */

static int copy_in_child(void)
{
	return forkgate_copy();
}

TEST_F(calls, copy_is_safe)
{
	pid_t pid;

	EXPECT_EQ(0, forkgate_copy());
	pid = fork();
	if (!pid)
		_exit(copy_in_child());
	EXPECT_EQ(0, child_exit(pid));
}

TEST_F(calls, copy_is_unsafe)
{
	struct forkgate_policy policy = patient_policy;
	pid_t pid;

	policy.timeout = MS(50);
	policy.on_timeout = FORKGATE_PROCEED;
	ASSERT_EQ(0, forkgate_policy_set(&policy));
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	pid = fork();
	if (!pid)
		_exit(copy_in_child());
	EXPECT_EQ(FORKGATE_COPY_UNSAFE_MEMORY, child_exit(pid) & FORKGATE_COPY_UNSAFE_MEMORY);
	EXPECT_EQ(0, forkgate_copy());
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(MEMORY)));
}

/*
 * Prepares that do not wait
 */

TEST_F(calls, ticket_at_once)
{
	int fd = 4711;

	ASSERT_EQ(0, forkgate_tryprepare(BOTH, &fd));
	EXPECT_EQ(-1, fd);
	EXPECT_EQ(1, state_now().forkers);
	EXPECT_EQ(0, forkgate_tryprepare(MEMORY, &fd));	/* covered */
	EXPECT_EQ(0, forkgate_release());
	EXPECT_EQ(ENOENT, forkgate_release());
}

TEST_F(calls, bad_domains)
{
	int fd = 4711;

	EXPECT_EQ(EINVAL, forkgate_tryprepare(0, &fd));
	EXPECT_EQ(-1, fd);
	EXPECT_EQ(EINVAL, forkgate_tryprepare(4, &fd));
	EXPECT_EQ(EINVAL, forkgate_tryprepare(~0u, &fd));
	EXPECT_EQ(0, state_now().forkers);
}

TEST_F(calls, ticket_later)
{
	int fd, again, flags;
	pid_t pid;

	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	ASSERT_EQ(EAGAIN, forkgate_tryprepare(BOTH, &fd));
	ASSERT_LE(0, fd);
	flags = fcntl(fd, F_GETFD);
	EXPECT_EQ(FD_CLOEXEC, flags & FD_CLOEXEC);
	EXPECT_EQ(0, polled(fd, 20));
	EXPECT_EQ(EAGAIN, forkgate_tryprepare(BOTH, &again));
	EXPECT_EQ(fd, again);

	EXPECT_EQ(0, run(&self->a, do_leave, ARG(MEMORY)));
	EXPECT_EQ(POLLIN, polled(fd, 30000));
	EXPECT_EQ(0, forkgate_tryprepare(BOTH, &again));
	EXPECT_EQ(-1, again);

	start(&self->a, do_enter, ARG(FILES));
	ASSERT_TRUE(wait_until(state_now().blocked == 1));
	pid = fork();
	if (!pid)
		_exit(copy_in_child());
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(ENOENT, forkgate_release());	/* the fork has used it */
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(FILES)));
}

TEST_F(calls, ticket_of_an_event_loop)
{
	struct epoll_event event = { .events = EPOLLIN };
	int fd, none, loop = epoll_create1(EPOLL_CLOEXEC);

	ASSERT_EQ(0, run(&self->a, do_enter, ARG(FILES)));
	ASSERT_EQ(EAGAIN, forkgate_tryprepare(FILES, &fd));
	ASSERT_EQ(0, epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event));
	EXPECT_EQ(0, epoll_wait(loop, &event, 1, 20));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(FILES)));
	EXPECT_EQ(1, epoll_wait(loop, &event, 1, 30000));
	EXPECT_EQ(EPOLLIN, event.events);
	EXPECT_EQ(0, epoll_ctl(loop, EPOLL_CTL_DEL, fd, NULL));
	EXPECT_EQ(0, forkgate_tryprepare(FILES, &none));
	EXPECT_EQ(0, forkgate_release());
}

TEST_F(calls, release_gives_up_the_place)
{
	int fd;

	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	ASSERT_EQ(EAGAIN, forkgate_tryprepare(MEMORY, &fd));
	EXPECT_EQ(1, state_now().forkers);
	EXPECT_EQ(0, forkgate_release());
	EXPECT_EQ(0, state_now().forkers);
	EXPECT_EQ(ENOENT, forkgate_release());
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(MEMORY)));
}

TEST_F(calls, place_times_out)
{
	int fd, none;

	ASSERT_EQ(0, set_limits(1000, 50));
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	ASSERT_EQ(EAGAIN, forkgate_tryprepare(MEMORY, &fd));
	EXPECT_EQ(POLLIN, polled(fd, 30000) & POLLIN);
	EXPECT_EQ(ETIMEDOUT, forkgate_tryprepare(MEMORY, &none));
	EXPECT_EQ(-1, none);
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(MEMORY)));
}

/* The library's descriptor may be gone, and its number another file's. */
TEST_F(calls, nothing_to_poll)
{
	int fd, again, pair[2];

	if (forkgate_protection(NULL) != FORKGATE_BY_MODULE)
		SKIP(return, "the library's own gate: there is always another one to poll");
	ASSERT_EQ(0, pipe(pair));
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	ASSERT_EQ(EAGAIN, forkgate_tryprepare(MEMORY, &fd));
	ASSERT_EQ(fd, dup2(pair[0], fd));
	EXPECT_EQ(EAGAIN, forkgate_tryprepare(MEMORY, &again));
	EXPECT_EQ(-1, again);
	close(fd);
	EXPECT_EQ(EAGAIN, forkgate_tryprepare(MEMORY, &again));
	EXPECT_EQ(-1, again);
	EXPECT_EQ(1, state_now().forkers);

	/* Another descriptor is none to poll, and says so. */
	fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	EXPECT_EQ(POLLERR, polled(fd, 30000));

	EXPECT_EQ(0, run(&self->a, do_leave, ARG(MEMORY)));
	EXPECT_TRUE(wait_until(forkgate_tryprepare(MEMORY, &again) == 0));
	EXPECT_EQ(0, forkgate_release());
}

#define ODD_ERRNO	7777

TEST_F(calls, errno_is_kept)
{
	struct forkgate_policy policy = { .pad = 1 };
	struct forkgate_state state = {};
	int fd;

	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	errno = ODD_ERRNO;
	EXPECT_EQ(EINVAL, forkgate_policy_set(&policy));
	EXPECT_EQ(ODD_ERRNO, errno);
	EXPECT_EQ(0, forkgate_policy_get(&policy));
	EXPECT_EQ(0, forkgate_state(&state));
	EXPECT_EQ(0, forkgate_copy());
	EXPECT_EQ(EAGAIN, forkgate_tryprepare(MEMORY, &fd));
	EXPECT_EQ(ODD_ERRNO, errno);
	EXPECT_EQ(0, forkgate_release());
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(MEMORY)));
}

/* Each thread has its own place. */
static long do_tryprepare(void *fd)
{
	return forkgate_tryprepare(BOTH, fd);
}

TEST_F(calls, one_place_for_each_thread)
{
	int fd, other;

	ASSERT_EQ(0, forkgate_tryprepare(BOTH, &fd));
	ASSERT_EQ(EAGAIN, run(&self->a, do_tryprepare, &other));
	ASSERT_LE(0, other);
	EXPECT_EQ(2, state_now().forkers);
	EXPECT_EQ(0, forkgate_release());
	EXPECT_TRUE(wait_until(run(&self->a, do_tryprepare, &other) == 0));
	EXPECT_EQ(-1, other);
	EXPECT_EQ(0, run(&self->a, do_release, NULL));
}

/*
 * Without a gate
 */

TEST(no_gate)
{
	int reason = forkgate_init(0), fd = 4711;
	struct forkgate_policy policy;
	struct forkgate_state state = {};

	if (!reason)
		SKIP(return, "there is a gate");
	EXPECT_EQ(reason, forkgate_policy_get(&policy));
	EXPECT_EQ(reason, forkgate_policy_set(&other_policy));
	EXPECT_EQ(reason, forkgate_state(&state));
	EXPECT_EQ(0, forkgate_copy());
	EXPECT_EQ(0, forkgate_tryprepare(BOTH, &fd));
	EXPECT_EQ(-1, fd);
	EXPECT_EQ(EINVAL, forkgate_tryprepare(4, &fd));

	EXPECT_EQ(reason, forkgate_init(FORKGATE_STRICT));
	EXPECT_EQ(reason, forkgate_tryprepare(BOTH, &fd));
	EXPECT_EQ(EINVAL, forkgate_tryprepare(4, &fd));
}

TEST_HARNESS_MAIN
