// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 8: policy is per gate, set by ioctl, inherited by the child.
 * Rule 10: exec discards it.
 */
#include "test/harness.h"

FIXTURE(policy) {
	struct forkgate_policy policy;
};

FIXTURE_SETUP(policy)
{
	ASSERT_EQ(0, gate_open());
	ASSERT_EQ(0, gate_map());
	ASSERT_EQ(0, gate_call(FORKGATE_IOC_POLICY_GET, &self->policy));
}

FIXTURE_TEARDOWN(policy)
{
}

TEST_F(policy, defaults)
{
	EXPECT_EQ(100 * NSEC_PER_MSEC, self->policy.patience);
	EXPECT_EQ(100 * NSEC_PER_MSEC, self->policy.ticket_hold);
	EXPECT_EQ(FORKGATE_FOREVER, self->policy.timeout);
	EXPECT_EQ(10 * NSEC_PER_SEC, self->policy.backstop);
	EXPECT_EQ(FORKGATE_FAIL, self->policy.on_timeout);
	EXPECT_EQ(0, self->policy.pad);
}

TEST_F(policy, get_returns_what_was_set)
{
	struct forkgate_policy policy = { 1, 2, 3, 4, FORKGATE_PROCEED, 0 };

	EXPECT_EQ(0, gate_set_policy(&policy));
	memset(&self->policy, 0xff, sizeof(self->policy));
	EXPECT_EQ(0, gate_call(FORKGATE_IOC_POLICY_GET, &self->policy));
	EXPECT_EQ(0, memcmp(&policy, &self->policy, sizeof(policy)));
}

TEST_F(policy, needs_no_registration)
{
	EXPECT_EQ(0, gate_state().threads);
	EXPECT_EQ(0, gate_set_policy(&self->policy));
}

/*
 * Values
 */

FIXTURE(time) {
	struct forkgate_policy policy;
	uint64_t *field;
};

FIXTURE_VARIANT(time) {
	size_t offset;
};

#define TIME(name)							\
	FIXTURE_VARIANT_ADD(time, name) { .offset = offsetof(struct forkgate_policy, name) }

TIME(patience);
TIME(ticket_hold);
TIME(timeout);
TIME(backstop);

FIXTURE_SETUP(time)
{
	ASSERT_EQ(0, gate_open());
	ASSERT_EQ(0, gate_map());
	ASSERT_EQ(0, gate_call(FORKGATE_IOC_POLICY_GET, &self->policy));
	self->field = (uint64_t *)((char *)&self->policy + variant->offset);
}

FIXTURE_TEARDOWN(time)
{
}

/* same_policy - did a refused call change nothing? */
static bool same_policy(struct forkgate_policy *old)
{
	struct forkgate_policy now = gate_policy();

	return !memcmp(&now, old, sizeof(now));
}

TEST_F(time, zero)
{
	*self->field = 0;
	EXPECT_EQ(0, gate_set_policy(&self->policy));
	EXPECT_TRUE(same_policy(&self->policy));
}

TEST_F(time, longest)
{
	*self->field = FORKGATE_TIME_MAX;
	EXPECT_EQ(0, gate_set_policy(&self->policy));
	EXPECT_TRUE(same_policy(&self->policy));
}

TEST_F(time, too_long)
{
	struct forkgate_policy old = self->policy;

	*self->field = FORKGATE_TIME_MAX + 1;
	EXPECT_EQ(-EINVAL, gate_set_policy(&self->policy));
	EXPECT_TRUE(same_policy(&old));
}

TEST_F(time, almost_forever)
{
	struct forkgate_policy old = self->policy;

	*self->field = FORKGATE_FOREVER - 1;
	EXPECT_EQ(-EINVAL, gate_set_policy(&self->policy));
	EXPECT_TRUE(same_policy(&old));
}

TEST_F(time, forever)
{
	struct forkgate_policy old = self->policy;

	/* A ticket that never runs out could hang an order of locks. */
	if (variant->offset == offsetof(struct forkgate_policy, ticket_hold)) {
		self->policy.ticket_hold = FORKGATE_FOREVER;
		EXPECT_EQ(-EINVAL, gate_set_policy(&self->policy));
		EXPECT_TRUE(same_policy(&old));
		return;
	}
	*self->field = FORKGATE_FOREVER;
	EXPECT_EQ(0, gate_set_policy(&self->policy));
	EXPECT_TRUE(same_policy(&self->policy));
}

TEST_F(policy, on_timeout_unknown)
{
	struct forkgate_policy old = self->policy;

	self->policy.on_timeout = 2;
	EXPECT_EQ(-EINVAL, gate_set_policy(&self->policy));
	EXPECT_TRUE(same_policy(&old));
}

TEST_F(policy, padding)
{
	struct forkgate_policy old = self->policy;

	self->policy.pad = 1;
	EXPECT_EQ(-EINVAL, gate_set_policy(&self->policy));
	EXPECT_TRUE(same_policy(&old));
}

/*
 * Whose policy it is
 */

static struct forkgate_policy expected = { 11, 22, 33, 44, FORKGATE_PROCEED, 0 };

static int child_same_policy(void)
{
	struct forkgate_policy mine = { 1, 1, 1, 1, FORKGATE_FAIL, 0 };

	if (!same_policy(&expected))
		return 1;
	return gate_set_policy(&mine) ? 2 : 0;
}

/* The child inherits it; what the child sets is its own. */
TEST_F(policy, inherited)
{
	ASSERT_EQ(0, gate_set_policy(&expected));
	EXPECT_EQ(0, child_exit(raw_fork(0, child_same_policy)));
	EXPECT_EQ(0, child_exit(raw_fork(CLONE_FILES, child_same_policy)));
	EXPECT_TRUE(same_policy(&expected));
}

/* What it was when the copy was made, not when the fork began to wait */
TEST_F(policy, inherited_after_a_wait)
{
	struct fork_how same = { .child = child_same_policy };
	struct worker holder, forker;

	ASSERT_LE(0, gate_register());
	ASSERT_EQ(0, gate_set_policy(&patient_policy));
	ASSERT_EQ(0, worker_new(&holder));
	ASSERT_EQ(0, worker_new(&forker));
	ASSERT_EQ(0, run(&holder, job_hold, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&forker, &same, 1));
	ASSERT_EQ(0, gate_set_policy(&expected));
	ASSERT_EQ(0, run(&holder, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&forker));
}

TEST_F(policy, discarded_by_exec)
{
	char number[16];
	pid_t pid;

	ASSERT_EQ(0, gate_set_policy(&expected));
	fcntl(gate.fd, F_SETFD, 0);
	snprintf(number, sizeof(number), "%d", gate.fd);
	pid = fork();
	if (!pid) {
		exec_helper("fresh", number);
		_exit(127);
	}
	EXPECT_EQ(0, child_exit(pid));
}

/* A running wait goes by the policy that it began with; the next one by the new. */
TEST_F(policy, applies_to_the_next_wait)
{
	struct forkgate_policy policy = patient_policy;
	struct worker holder, forker;

	ASSERT_LE(0, gate_register());
	ASSERT_EQ(0, gate_set_policy(&policy));
	ASSERT_EQ(0, worker_new(&holder));
	ASSERT_EQ(0, worker_new(&forker));
	ASSERT_EQ(0, run(&holder, job_hold, ARG(MEMORY)));
	policy.backstop = 0;
	ASSERT_EQ(0, gate_set_policy(&policy));
	EXPECT_EQ(-EAGAIN, run(&forker, job_fork, &fork_both));
	policy.backstop = FORKGATE_FOREVER;
	ASSERT_EQ(0, gate_set_policy(&policy));
	ASSERT_TRUE(fork_waits(&forker, &fork_both, 1));
	ASSERT_EQ(0, run(&holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&forker));
}

TEST_HARNESS_MAIN
