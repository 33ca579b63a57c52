// SPDX-License-Identifier: GPL-2.0-only
/*
 * ticket.c - prepare, release and poll: forkers that are not yet in a clone
 *
 * A ticket is granted alone, because its holder may enter sections (rule 11).
 * One that is polled for is granted like any other, by whoever makes it
 * possible; its holder's next call only advances a phase that no other forker
 * can advance. Must not know how a clone waits.
 */

#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "gate.h"
#include "trace.h"

/**
 * fg_file_put - drop a reference
 * @file: an open file
 *
 * Context: any.
 */
void fg_file_put(struct fg_file *file)
{
	if (refcount_dec_and_test(&file->ref))
		kfree_rcu(file, rcu);
}

static int fg_mark_func(struct wait_queue_entry *mark, unsigned int mode,
			int flags, void *key)
{
	return 0;
}

/**
 * fg_file_alloc - what an open file of the device has once it is polled
 *
 * Return: it, with one reference, or NULL.
 */
struct fg_file *fg_file_alloc(void)
{
	struct fg_file *file = kzalloc(sizeof(*file), GFP_KERNEL_ACCOUNT);

	if (!file)
		return NULL;
	refcount_set(&file->ref, 1);
	init_waitqueue_head(&file->wait);
	init_waitqueue_func_entry(&file->mark, fg_mark_func);
	INIT_LIST_HEAD(&file->mark.entry);
	return file;
}

/*
 * Rule 13: wake a batch of those that poll a file, up to the end of pass @pass;
 * file->wait.lock is held. A pass goes on where another gate has left it: one
 * that began again would never end while others have news. Return: whether the
 * pass has ended.
 */
static bool fg_file_wake(struct fg_file *file, u32 pass)
{
	void *key = poll_to_key(EPOLLIN | EPOLLRDNORM | EPOLLERR);
	struct wait_queue_entry *watcher, *mark = &file->mark;
	struct list_head *watchers = &file->wait.head;
	int n;

	if ((s32)(file->ended - pass) >= 0)
		return true;
	if (list_empty(&mark->entry)) {
		file->begun++;
		list_add(&mark->entry, watchers);
	}
	for (n = 0; n < FG_WAKE_BATCH; n++) {
		if (list_is_last(&mark->entry, watchers))
			break;
		watcher = list_next_entry(mark, entry);
		list_move(&mark->entry, &watcher->entry);
		watcher->func(watcher, TASK_NORMAL, 0, key);
	}
	if (list_is_last(&mark->entry, watchers)) {
		list_del_init(&mark->entry);
		file->ended = file->begun;
	}
	return (s32)(file->ended - pass) >= 0;
}

/**
 * fg_poll_notify - queue a poll() wake-up for a forker
 * @gate: its gate; gate->lock is held
 * @thr: the forker
 *
 * fg_settle() wakes those that poll, or the timer if it does not come soon.
 */
void fg_poll_notify(struct fg_gate *gate, struct fg_thread *thr)
{
	lockdep_assert_held(&gate->lock);

	if (!thr->fork.file)
		return;
	thr->fork.news++;
	if (gate->notified == thr)	/* it takes another pass */
		gate->notified = NULL;
	if (!list_empty(&thr->fork.notify))
		return;
	list_add_tail(&thr->fork.notify, &gate->notify);
	fg_timer_kick(gate);
}

/* The news of a forker of gate->notify have been told; gate->lock is held. */
static void fg_poll_told(struct fg_gate *gate, struct fg_thread *thr)
{
	list_del_init(&thr->fork.notify);
	if (gate->notified == thr)
		gate->notified = NULL;
}

/* The next forker to tell, referenced, or NULL; what to know of it. */
static struct fg_thread *fg_poll_first(struct fg_gate *gate,
				       struct fg_file **file, u32 *news,
				       u32 *pass, bool *begin)
{
	struct fg_thread *thr;

	lockdep_assert_held(&gate->lock);

	thr = list_first_entry_or_null(&gate->notify, struct fg_thread,
				       fork.notify);
	if (!thr)
		return NULL;
	*news = thr->fork.news;
	*begin = gate->notified != thr;
	*pass = gate->notified_pass;
	*file = thr->fork.file;
	if (*file)
		refcount_inc(&(*file)->ref);
	else
		fg_poll_told(gate, thr);
	refcount_inc(&thr->ref);
	return thr;
}

/**
 * fg_poll_wake - wake a batch of those that poll for a forker of gate->notify
 * @gate: the gate
 *
 * Context: process or softirq.
 * Return: false if there was none.
 */
bool fg_poll_wake(struct fg_gate *gate)
{
	struct fg_file *file;
	struct fg_thread *thr;
	unsigned long irq;
	bool begin, told;
	u32 news, pass;

	raw_spin_lock_irqsave(&gate->lock, irq);
	thr = fg_poll_first(gate, &file, &news, &pass, &begin);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	if (!thr)
		return false;
	if (!file)
		goto out;

	spin_lock_irqsave(&file->wait.lock, irq);
	if (begin)
		pass = file->begun + 1;
	told = fg_file_wake(file, pass);
	spin_unlock_irqrestore(&file->wait.lock, irq);

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (thr->fork.news == news && told) {
		fg_poll_told(gate, thr);
	} else if (thr->fork.news == news && begin &&
		   list_is_first(&thr->fork.notify, &gate->notify)) {
		gate->notified = thr;
		gate->notified_pass = pass;
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_file_put(file);
out:
	fg_thread_put(thr);
	return true;
}

/**
 * fg_ticket_poll - should the caller call PREPARE again?
 * @gate: the caller's gate, referenced
 * @file: the file that is polled
 *
 * Return: EPOLLIN if the caller's non-blocking prepare was granted, has lost
 * its place or has to bring the phase on; 0 while it waits; EPOLLERR if none
 * was made with this file.
 */
__poll_t fg_ticket_poll(struct fg_gate *gate, struct fg_file *file)
{
	struct fg_thread *thr = fg_thread_find(current);
	__poll_t events = EPOLLERR;
	struct fg_fork *fork;
	unsigned long irq;

	if (!thr)
		return events;
	fork = &thr->fork;
	raw_spin_lock_irqsave(&gate->lock, irq);
	if (fg_thread_gate(thr) == gate && fork->file == file) {
		events = EPOLLIN | EPOLLRDNORM;
		if (fork->state == FG_FORK_WAITING &&
		    fork->driver == FG_BY_POLL)
			events = 0;
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_thread_put(thr);
	return events;
}

/* Double what the policy says for every attempt before (rule 7). */
static u64 fg_patience(struct fg_gate *gate, u32 attempt)
{
	u64 patience = gate->policy.patience;

	while (attempt--)
		patience = fg_saturated_add(patience, patience);
	return patience;
}

/*
 * Take a place, or go on with the one there is; gate->lock is held.
 * Return: 0 to wait, 1 if a ticket that was polled for is there, -EALREADY if
 * any other, -ETIMEDOUT if one that was polled for has run out of time.
 */
static int fg_ticket_start(struct fg_gate *gate, struct fg_thread *thr,
			   struct fg_file *file,
			   const struct forkgate_prepare *prepare)
{
	bool polled = prepare->flags & FORKGATE_NONBLOCK;
	enum fg_fork_kind kind = polled ? FG_POLLED_TICKET : FG_TICKET;
	struct fg_fork *fork = &thr->fork;
	u64 now = 0;
	int ret = 0;

	if (fork->state == FG_FORK_TICKET &&
	    !(prepare->domains & ~fork->need)) {
		ret = fork->kind == FG_POLLED_TICKET &&
		      fork->driver != FG_BY_CALLER ? 1 : -EALREADY;
		fork->driver = FG_BY_CALLER;
		fg_fork_unpoll(fork);
		return ret;
	}

	/* A wait that is polled for goes on, and may end, between the calls. */
	if (polled && fork->state == FG_FORK_NONE && fork->file &&
	    fg_fork_past(fork) == FG_PAST_WAITED) {
		fg_fork_unpoll(fork);
		return -ETIMEDOUT;
	}
	if (fork->state == FG_FORK_NONE || fork->kind != FG_POLLED_TICKET)
		now = fg_fork_resume(fork);
	fg_thread_tell(gate, thr, FORKGATE_OUTCOME_NONE);
	fg_fork_unpoll(fork);
	fg_fork_other(gate, thr, prepare->domains, kind);
	if (polled) {
		refcount_inc(&file->ref);
		fork->file = file;
	}
	if (fork->state != FG_FORK_NONE) {
		fg_phase_again(gate, thr, prepare->domains, kind, FG_BY_CALLER);
		return 0;
	}
	fork->past = FG_PAST_NONE;
	fork->need = prepare->domains;
	fork->kind = kind;
	fork->driver = FG_BY_CALLER;
	fork->patience = fg_patience(gate, prepare->attempt);
	fg_phase_join(gate, thr, now);
	return 0;
}

/* A prepare's wait has ended without a ticket. Return: what the call says. */
static int fg_ticket_failed(struct fg_gate *gate, struct fg_thread *thr,
			    struct forkgate_prepare *prepare, int why)
{
	bool own_limit = prepare->flags & FORKGATE_TIMED;
	/* Rule 13: what the caller asked for is not logged. */
	bool quiet = own_limit || prepare->flags & FORKGATE_NONBLOCK;
	bool proceed = fg_fork_failed(gate, thr, why, !own_limit, quiet);
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	fg_fork_leave_past(gate, &thr->fork,
			   proceed ? FG_PAST_UNSAFE : FG_PAST_WAITED);
	fg_phase_leave(gate, thr);
	fg_fork_unpoll(&thr->fork);
	fg_phase_run(gate);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_settle(gate);
	if (proceed) {
		prepare->outcome = FORKGATE_OUTCOME_UNSAFE;
		return 0;
	}
	prepare->outcome = why == -EDEADLK ? FORKGATE_OUTCOME_DEADLK :
					     FORKGATE_OUTCOME_TIMEOUT;
	return why;
}

/* Rule 8: how long a prepare may sleep, and when it ends; lock held. */
static u64 fg_ticket_end(struct fg_gate *gate, struct fg_fork *fork,
			 const struct forkgate_prepare *prepare)
{
	u64 timeout = prepare->flags & FORKGATE_TIMED ? prepare->timeout :
							gate->policy.timeout;

	fork->limit = FORKGATE_FOREVER;
	if (prepare->flags & (FORKGATE_TIMED | FORKGATE_NONBLOCK))
		return fg_saturated_add(fork->since, timeout);
	fork->limit = timeout;
	return FORKGATE_FOREVER;
}

/* One prepare. Return: as fg_prepare(), or -ESTALE for the thread to start anew. */
static int fg_prepare_once(struct fg_gate *gate, struct fg_thread *thr,
			   struct fg_file *file,
			   struct forkgate_prepare *prepare)
{
	struct fg_fork *fork = &thr->fork;
	unsigned long irq;
	u64 end = 0;
	int ret;

	raw_spin_lock_irqsave(&gate->lock, irq);
	ret = gate->dead ? -ENXIO : fg_ticket_start(gate, thr, file, prepare);
	if (ret != -ENXIO)
		prepare->outcome = FORKGATE_OUTCOME_GRANTED;
	if (!ret)
		end = fg_ticket_end(gate, fork, prepare);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	if (ret == -ENXIO || ret == -EALREADY)
		return ret;

	if (!ret)
		ret = fg_fork_wait(gate, thr, end);
	switch (ret) {
	case 1:
		ret = 0;
		fallthrough;
	case 0:
		raw_spin_lock_irqsave(&gate->lock, irq);
		fg_fork_unpoll(fork);
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		fg_step(FG_STEP_PREPARED);
		break;
	case -ETIMEDOUT:
	case -EDEADLK:
		ret = fg_ticket_failed(gate, thr, prepare, ret);
		break;
	case -ESTALE:
		fg_fork_drop(gate, thr);
		return ret;
	default:
		prepare->outcome = FORKGATE_OUTCOME_NONE;
	}
	/* A grant has told it, perhaps just now. */
	if (prepare->outcome != FORKGATE_OUTCOME_GRANTED &&
	    prepare->outcome != FORKGATE_OUTCOME_NONE)
		fg_outcome(gate, thr, prepare->outcome);
	return ret;
}

/**
 * fg_prepare - PREPARE: take a ticket
 * @gate: the caller's gate, referenced
 * @file: the file that the call came by; may be NULL unless non-blocking
 * @prepare: checked arguments; @prepare->outcome is set
 *
 * Context: the calling thread; may sleep, a signal restarts it and keeps its
 * place.
 * Return: 0 (granted, or unsafe as the policy says), -EALREADY (a granted
 * ticket covers it), -EAGAIN (non-blocking, keeps waiting), -ETIMEDOUT,
 * -EDEADLK, -ENOMEM, -ENXIO, -ERESTARTNOINTR.
 */
int fg_prepare(struct fg_gate *gate, struct fg_file *file,
	       struct forkgate_prepare *prepare)
{
	struct fg_thread *thr;
	int ret;

	do {
		thr = fg_thread_get(gate);
		if (IS_ERR(thr))
			return PTR_ERR(thr);
		ret = fg_prepare_once(gate, thr, file, prepare);
		fg_thread_put(thr);
	} while (ret == -ESTALE);
	return ret;
}

/**
 * fg_ticket_release - RELEASE: give a ticket, or the place of a prepare, back
 * @gate: the caller's gate, referenced
 *
 * Return: 0, -ESTALE (the ticket has expired), -ENOENT (there is none).
 */
int fg_ticket_release(struct fg_gate *gate)
{
	struct fg_thread *thr = fg_thread_find(current);
	struct fg_fork *fork;
	enum fg_past past;
	unsigned long irq;
	int ret = -ENOENT;

	if (!thr)
		return ret;
	fork = &thr->fork;
	raw_spin_lock_irqsave(&gate->lock, irq);
	if (fg_thread_gate(thr) == gate && !gate->dead) {
		past = fg_fork_past(fork);
		if (fork->state != FG_FORK_NONE || past == FG_PAST_UNSAFE)
			ret = 0;
		else if (past == FG_PAST_PREPARED)
			ret = -ESTALE;
		fork->past = FG_PAST_NONE;
		fg_phase_leave(gate, thr);
		fg_fork_unpoll(fork);
		fg_phase_run(gate);
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_settle(gate);
	fg_thread_put(thr);
	return ret;
}
