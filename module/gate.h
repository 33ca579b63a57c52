/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * gate.h - the module's private header: its objects, their locks and
 * lifetimes, and what one file offers to the others
 *
 * Must not know about kprobes and ftrace (hook.h), or tracepoints of other
 * subsystems (lifecycle.c).
 * Kernel versions are for compat.h alone.
 *
 * Objects and references:
 *
 *	fg_thread -> fg_gate			counted, for life, unless it has a
 *						parent, which has one
 *	fg_thread -> fg_thread (parent)		counted, for life
 *	fg_fork   -> fg_file			counted, while polled for
 *	fg_slot   -> fg_thread (owner, actor)	cleared when the thread is
 *						unlinked, under gate->lock
 *	a pending gate->timer			holds the gate
 *
 * Lock order, outermost first:
 *
 *	mmap_lock, task->alloc_lock	vm_ops and the exec hook run under them
 *	fg_gate.fence_mutex		one fence of a gate at a time
 *	fg_gate.lock			raw, interrupts off
 *	a bucket of the two tables	raw, a leaf
 *	scheduler and timer base locks	wake_up_process(), timer_reduce()
 *
 * Locks that probe or tracepoint handlers take are raw because those handlers
 * must not sleep on PREEMPT_RT either.
 *
 * Rule 13: whatever runs under fg_gate.lock is bounded by one of the constants
 * below, or by FORKGATE_UNITS where a slot is looked for, never by the number of
 * threads, forkers or watchers.
 */
#ifndef FG_GATE_H
#define FG_GATE_H

#include <linux/atomic.h>
#include <linux/bits.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/ratelimit.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/timerqueue.h>
#include <linux/wait.h>

#include <linux/forkgate.h>

#define FG_NR_DOMAINS		2
#define FG_NR_NEEDS		(FORKGATE_DOMAINS + 1)
#define FG_NO_SLOT		(-1)

/* Limits on the work done in one critical section of gate->lock */
#define FG_RELEASE_BATCH	16	/* blocked threads counted in */
#define FG_GRANT_BATCH		16	/* forkers granted */
#define FG_EXPIRE_BATCH		16	/* deadlines handled */
#define FG_SCAN_BATCH		4	/* units scanned */
#define FG_CLOSE_BATCH		64	/* units that get the closed word */
#define FG_WAKE_BATCH		64	/* watchers of an open file woken */

/* The default of the policy */
#define FG_TICKET_HOLD		(100 * NSEC_PER_MSEC)

/* Maximum depth of nested vforks that share a slot */
#define FG_NEST_MAX		8

/**
 * enum fg_fork_state - where a forker is
 * @FG_FORK_NONE: not a forker
 * @FG_FORK_WAITING: in the phase, or queued for the next (fg_fork_queued())
 * @FG_FORK_TICKET: in the phase, granted, in user mode until its deadline
 * @FG_FORK_COPYING: in the phase, granted, the kernel copies
 */
enum fg_fork_state {
	FG_FORK_NONE,
	FG_FORK_WAITING,
	FG_FORK_TICKET,
	FG_FORK_COPYING,
};

/**
 * enum fg_fork_driver - what drives a forker
 * @FG_BY_CALLER: its thread, which is in the kernel, running or asleep
 * @FG_BY_POLL: its thread's next call, which poll() tells it to make
 * @FG_BY_NUDGE: the same, and poll() has been told
 * @FG_BY_RESTART: a call that a signal interrupted; the place is kept for it
 */
enum fg_fork_driver {
	FG_BY_CALLER,
	FG_BY_POLL,
	FG_BY_NUDGE,
	FG_BY_RESTART,
};

/* What a forker waits for. The lists of waiting forkers are kept apart by it. */
enum fg_fork_kind {
	FG_CLONE,
	FG_TICKET,
	FG_POLLED_TICKET,
	FG_NR_KINDS,
};

/**
 * enum fg_past - what the last prepare means for the clone that follows it
 * @FG_PAST_NONE: nothing
 * @FG_PAST_PREPARED: libc's locks may be held: it waits for patience at most,
 *	and its failure says "prepare again"
 * @FG_PAST_WAITED: the prepare timed out; what it slept counts
 * @FG_PAST_UNSAFE: the prepare timed out, and the policy says to go ahead
 */
enum fg_past {
	FG_PAST_NONE,
	FG_PAST_PREPARED,
	FG_PAST_WAITED,
	FG_PAST_UNSAFE,
};

#define FG_NO_EDGE	(-1)

/**
 * struct fg_fork - a thread as a forker; all under gate->lock
 * @node: in gate->forkers unless @state is FG_FORK_NONE
 * @wait: in a list of gate->phase or gate->queue while FG_FORK_WAITING, except
 *	with FG_BY_RESTART
 * @notify: in gate->notify while poll() has to be told
 * @deadline: in gate->deadlines while its place or ticket has an end
 * @state: where it is
 * @driver: what drives it
 * @kind: what it waits for
 * @past: what its last prepare left
 * @past_until: ns, when that ends
 * @past_slept: ns that prepare has slept
 * @need: domains that must be idle for it
 * @edge: its place in gate->edges while it sleeps or is polled for, FG_NO_EDGE
 * @phase: number of its phase, see fg_fork_queued()
 * @order: of arrival
 * @patience: ns, doubles with every yield
 * @since: ns, when it began to wait
 * @slept: ns it has slept in this wait, across restarts
 * @limit: ns it may sleep in this wait; when it ends if polled for
 * @left_at: user stack pointer of the wait that a signal interrupted last, by
 *	which its restart is known; 0 if there is none. Outlives the place.
 * @left_until: ns, until when it is taken for that
 * @left_slept: what that wait had slept
 * @left_since: when it began
 * @file: whose poll() is told, a reference; NULL unless polled for
 * @news: counts what poll() has to be told
 */
struct fg_fork {
	struct list_head node;
	struct list_head wait;
	struct list_head notify;
	struct timerqueue_node deadline;
	enum fg_fork_state state;
	enum fg_fork_driver driver;
	enum fg_fork_kind kind;
	enum fg_past past;
	u64 past_until;
	u64 past_slept;
	u32 need;
	int edge;
	u64 phase;
	u64 order;
	u64 patience;
	u64 since;
	u64 slept;
	u64 limit;
	unsigned long left_at;
	u64 left_until;
	u64 left_slept;
	u64 left_since;
	struct fg_file *file;
	u32 news;
};

/**
 * enum fg_entry_state - where a thread is that has to wait to enter
 * @FG_ENTRY_BLOCKED: in gate->blocked or gate->released
 * @FG_ENTRY_ADMITTED: counted in by whoever released it
 * @FG_ENTRY_VOID: the gate, or the thread's place in it, is gone
 */
enum fg_entry_state {
	FG_ENTRY_BLOCKED,
	FG_ENTRY_ADMITTED,
	FG_ENTRY_VOID,
};

/**
 * struct fg_entry - a call that waits to enter; on its stack, under gate->lock
 * @node: in gate->blocked[@rank][@want] or gate->released while BLOCKED
 * @thr: the thread
 * @state: where it is
 * @rank: FG_NEWCOMER or FG_NESTED
 * @want: domains it enters
 * @batch: gate->batch[@rank][@want] when it was blocked; differs once released
 * @levels: to add to its slot upon admission
 * @since: ns, when it came
 */
struct fg_entry {
	struct list_head node;
	struct fg_thread *thr;
	enum fg_entry_state state;
	u32 rank;
	u32 want;
	u64 batch;
	u32 levels[FG_NR_DOMAINS];
	u64 since;
};

/* How a blocked thread came: in no section before, or inside one */
#define FG_NEWCOMER	0
#define FG_NESTED	1
#define FG_NR_RANKS	2

/**
 * struct fg_clone - a clone under way, on the stack of fg_clone() in hook.c
 * @thr: the forker, a reference
 * @flags: of the clone
 * @need: domains it copies
 * @tries: it must not wait, because its caller has not prepared yet
 * @child: the gate made for the child, until the child's mapping takes it
 * @stand_in: a vfork child's fg_thread, a reference
 * @depth: of the parent's slot, before a vfork
 */
struct fg_clone {
	struct fg_thread *thr;
	u64 flags;
	u32 need;
	bool tries;
	struct fg_gate *child;
	struct fg_thread *stand_in;
	u32 depth[FG_NR_DOMAINS];
};

/**
 * struct fg_slot - the kernel's side of a slot
 * @gate: a reference, for life
 * @nr: number of the slot, FG_NO_SLOT before registration and after the owner
 * @owner: the thread it belongs to; who goes takes it along
 * @actor: the thread that runs: the owner, or the innermost of its vfork
 *	children while all others are suspended. NULL from its end until its
 *	parent goes on.
 * @survivors: threads that ran with it and may be inside, though a parent of
 *	theirs has gone on without them
 * @counted: domains in which the gate has counted it inside
 * @opening: gate->openings when @counted was true
 *
 * All but the first under gate->lock. Part of the first owner's fg_thread, which
 * those that count here hold as a parent, or as a parent's parent.
 */
struct fg_slot {
	struct fg_gate *gate;
	int nr;
	struct fg_thread *owner;
	struct fg_thread *actor;
	u32 survivors;
	u32 counted;
	u64 opening;
};

/**
 * struct fg_thread - a task of a gated process
 * @node: in gate->threads while linked; under gate->lock
 * @fork: this thread as a forker
 * @ref: one for being linked, one for every call in progress
 * @rcu: freed after a grace period, the table is read under RCU
 * @hash: in the table of threads, by @task, while linked
 * @task: the thread. Not a reference: the exit hook unlinks first
 * @pid: for blame, a reference
 * @slot: where it counts, for life: @own, or, as a vfork child, its parent's
 * @own: the slot of a thread without a parent
 * @parent: for whom it stands as a vfork child, a reference, for life; or NULL
 * @child: who stands for it, while its vfork lasts; only ever compared; under
 *	gate->lock
 * @nest: how many parents it has
 * @survives: its parent was killed, and the slot is not its own; under
 *	gate->lock
 * @clone: its clone between grant and return; of the thread itself, in which
 *	vm_ops->open and the fork hook run
 *
 * Born by registration or by the first clone of an unregistered thread (or, for
 * a child, by its parent's clone); unlinked by unregistration, exit, exec or
 * the end of the gate, whichever is first.
 */
struct fg_thread {
	/* Constructed, see fg_thread_construct(), up to fork.deadline */
	struct list_head node;
	struct fg_fork fork;
	refcount_t ref;
	struct rcu_head rcu;
	struct hlist_node hash;
	struct task_struct *task;
	struct pid *pid;
	struct fg_slot *slot;
	struct fg_slot own;
	struct fg_thread *parent;
	const struct fg_thread *child;
	u32 nest;
	bool survives;
	struct fg_clone *clone;
};

/* A unit as user space sees it, which may write anything there at any time */
struct fg_shared {
	struct forkgate_header header;
	struct forkgate_slot slots[FORKGATE_UNIT_SLOTS];
};

/**
 * struct fg_unit - a unit of slots
 * @page: the memory, mapped by user space on demand
 * @shared: the same, as the kernel sees it
 * @used: a bit for every slot that has an owner; under gate->lock
 * @slots: those; under gate->lock
 *
 * Lives as long as the gate's mapping.
 */
struct fg_unit {
	struct page *page;
	struct fg_shared *shared;
	u64 used;
	struct fg_slot *slots[FORKGATE_UNIT_SLOTS];
};

/* What is counted, for each gate and for the machine; see struct forkgate_state */
enum fg_event {
	FG_EVENT_FORK,
	FG_EVENT_PHASE,
	FG_EVENT_YIELD,
	FG_EVENT_EXPIRE,
	FG_EVENT_TIMEOUT,
	FG_EVENT_DEADLOCK,
	FG_EVENT_UNSAFE,
	FG_EVENT_ABANDON,
	FG_EVENT_BYPASS,
	FG_NR_EVENTS,
};

/* What is measured, for the machine; see stats.c */
enum fg_time {
	FG_TIME_FORK,
	FG_TIME_ENTRY,
	FG_TIME_PHASE,
	FG_NR_TIMES,
};

/**
 * struct fg_blame - what a thread is inside of
 * @pid: the thread, a reference; NULL without one
 * @domains: the domains
 * @site: code address of its last entry
 * @label: printable name of the section, may be empty
 */
struct fg_blame {
	struct pid *pid;
	u32 domains;
	u64 site;
	char label[FORKGATE_LABEL_SIZE + 1];
};

/**
 * struct fg_report - what the timer logs, because its finder may not
 * @blame: who, and inside of what; nothing to log without its pid
 * @bypass: its clone bypassed the hook; otherwise it went away
 */
struct fg_report {
	struct fg_blame blame;
	bool bypass;
};

/**
 * enum fg_domain_state - how much of the closing of a domain is done
 * @FG_DOMAIN_OPEN: no forker of the phase needs it
 * @FG_DOMAIN_FENCING: closed, but not every running thread knows (F3)
 * @FG_DOMAIN_SCANNING: units below the cursor are scanned (F4)
 * @FG_DOMAIN_COUNTED: the gate knows every thread inside
 */
enum fg_domain_state {
	FG_DOMAIN_OPEN,
	FG_DOMAIN_FENCING,
	FG_DOMAIN_SCANNING,
	FG_DOMAIN_COUNTED,
};

/**
 * struct fg_domain - a domain in the current phase; under gate->lock
 * @state: how much of its closing is done
 * @cursor: the next unit to scan
 * @inside: slots counted inside
 * @sole: exclusive or of their addresses: the one, if there is one
 * @holds: granted forkers that need it
 */
struct fg_domain {
	enum fg_domain_state state;
	u32 cursor;
	u32 inside;
	unsigned long sole;
	u32 holds;
};

/**
 * struct fg_crowd - forkers of one phase; under gate->lock
 * @waiting: those that wait, by need and kind, in order of arrival
 * @waits: a bit for each of these lists that is not empty, fg_wait_bit()
 * @nr: all of them, also the granted and those with a kept place
 * @drains: how many of them wait for each domain
 * @patience: ns, the longest of them
 */
struct fg_crowd {
	struct list_head waiting[FG_NR_NEEDS * FG_NR_KINDS];
	unsigned long waits;
	u32 nr;
	u32 drains[FG_NR_DOMAINS];
	u64 patience;
};

/**
 * enum fg_joining - who may join the phase
 * @FG_JOIN_ALL: every forker; nobody was granted yet
 * @FG_JOIN_INSIDE: those inside a section, for which the phase may be waiting,
 *	and without patience all, since a drain keeps no newcomer out then
 * @FG_JOIN_DRAIN: since a thread was kept out through a grant, only those
 *	inside a section, and only while the phase drains, which patience ends;
 *	without patience none
 */
enum fg_joining {
	FG_JOIN_ALL,
	FG_JOIN_INSIDE,
	FG_JOIN_DRAIN,
};

/**
 * struct fg_gate - the gate of one address space
 * @lock: protects everything below that does not say otherwise
 * @fence_mutex: see the lock order; protects nothing but its section
 * @timer: runs when a place, a ticket or the patience ends
 * @deadlines: ends of places and tickets
 * @threads: linked threads
 * @forkers: all forkers, for blame
 * @blocked: entries that wait, by rank and domains
 * @released: entries let go but not yet counted in. Nothing is granted and no
 *	phase begins while there are any.
 * @notify: forkers whose poll() has to be told
 * @phase: the forkers of this phase
 * @queue: the forkers of the next
 * @ref: one for being mapped, one for every thread with a slot of its own, call
 *	and pending timer
 * @rcu: freed after a grace period, the table is read under RCU
 * @hash: in the table of gates, by @mm, while mapped
 * @mm: whose gate it is. Not a reference: the mapping's end comes first
 * @vmas: mappings; the last one's end is the gate's
 * @dead: no mapping any more: no one waits here, nothing is promised
 * @pinned: dead while clones were under way, for which the module is held
 * @clones: clones under way
 * @units: @nr_units pointers, of which the array has room for @max_units
 * @unit: the array of a gate with one unit
 * @nr_units: units below have been in use
 * @max_units: 1 or FORKGATE_UNITS
 * @free: no unit below has a free slot
 * @copy: FORKGATE_COPY_*, for the units' headers
 * @nr_threads: slots with an owner, @inherits included
 * @nr_blocked: entries in @blocked and @released
 * @heir: in a copied gate, the thread that its parent's clone made for it,
 *	until lifecycle.c says which task that is; a reference
 * @inherits: in a copied gate, the slot of that thread, which is idle, until its
 *	unit is there; or NULL
 * @inherited: its number then
 * @closed: what the units' headers say, or will say
 * @published: units below have that
 * @openings: counts openings
 * @domains: the domains
 * @strict: this phase keeps newcomers of either domain out
 * @joining: who may join the phase
 * @phase_nr: number of this phase
 * @order: counts arrivals
 * @nr_tickets: granted tickets: at most one
 * @nr_copies: copies in progress
 * @edges: waiting forkers by what they need and are inside of
 * @nr_polled: how many of them are polled for
 * @yield_at: ns, when the drain yields next
 * @closed_at: ns, when this phase began
 * @batch: counts releases of all of @blocked[i][j]
 * @notified: the first of @notify once a pass of its file is known that tells it
 * @notified_pass: that pass
 * @policy: see forkgate(4)
 * @events: how often each happened
 * @messages: limits the messages about this gate
 * @report: one thing for the timer to log
 */
struct fg_gate {
	/* Constructed, see fg_gate_construct(), with the lists of the crowds */
	raw_spinlock_t lock;
	struct mutex fence_mutex;	/* one fence at a time */
	struct timer_list timer;
	struct timerqueue_head deadlines;
	struct list_head threads;
	struct list_head forkers;
	struct list_head blocked[FG_NR_RANKS][FG_NR_NEEDS];
	struct list_head released;
	struct list_head notify;
	struct fg_crowd phase;
	struct fg_crowd queue;

	refcount_t ref;
	struct rcu_head rcu;
	struct hlist_node hash;
	struct mm_struct *mm;
	unsigned int vmas;
	bool dead;
	bool pinned;
	u32 clones;

	struct fg_unit **units;
	struct fg_unit *unit;
	u32 nr_units;
	u32 max_units;
	u32 free;
	u32 copy;

	u32 nr_threads;
	u32 nr_blocked;
	struct fg_thread *heir;
	struct fg_slot *inherits;
	int inherited;

	u32 closed;
	u32 published;
	u64 openings;
	struct fg_domain domains[FG_NR_DOMAINS];
	bool strict;
	enum fg_joining joining;
	u64 phase_nr;
	u64 order;
	u32 nr_tickets;
	u32 nr_copies;
	u32 edges[FG_NR_NEEDS * FG_NR_NEEDS];
	u32 nr_polled;
	u64 yield_at;
	u64 closed_at;
	u64 batch[FG_NR_RANKS][FG_NR_NEEDS];

	const struct fg_thread *notified;
	u32 notified_pass;
	struct forkgate_policy policy;
	u64 events[FG_NR_EVENTS];
	struct ratelimit_state messages;
	struct fg_report report;
};

/**
 * struct fg_file - an open file of the device that is, or was, polled
 * @ref: one for the file, one for each forker whose poll() it tells
 * @rcu: freed after a grace period
 * @wait: who polls
 * @mark: in @wait during a pass, before those that it has yet to wake
 * @begun: passes begun
 * @ended: passes ended
 *
 * The last three under the lock of @wait. A pass wakes all that poll. Gates that
 * share a file share the passes: each needs one that begins after its news.
 */
struct fg_file {
	refcount_t ref;
	struct rcu_head rcu;
	wait_queue_head_t wait;
	struct wait_queue_entry mark;
	u32 begun;
	u32 ended;
};

/* gate.c: gates and their lives */
int fg_gates_init(void);
void fg_gates_exit(void);
struct fg_gate *fg_gate_find_rcu(struct mm_struct *mm);
struct fg_gate *fg_gate_get(struct mm_struct *mm);
void fg_gate_put(struct fg_gate *gate);
struct fg_gate *fg_gate_alloc(gfp_t gfp);
struct fg_gate *fg_gate_copy(struct fg_thread *thr, struct fg_gate *parent,
			     gfp_t gfp);
void fg_gate_mark_copy(struct fg_gate *gate, u32 copy);
void fg_gate_attach(struct fg_gate *gate, struct mm_struct *mm);
void fg_gate_detach(struct fg_gate *gate);
void fg_gate_discard(struct fg_gate *gate);
void fg_gates_for_each(void (*fn)(struct fg_gate *gate, void *arg), void *arg);

/* map.c: the memory shared with user space */
struct vm_area_struct;
int fg_units_init(void);
void fg_units_exit(void);
void fg_unit_free(struct fg_unit *unit);
int fg_unit_add(struct fg_gate *gate, u32 index, gfp_t gfp);
int fg_unit_inherit(struct fg_gate *gate, gfp_t gfp);
int fg_map(struct vm_area_struct *vma);

/* thread.c: threads and their slots */
int fg_threads_init(void);
void fg_threads_exit(void);
struct fg_thread *fg_thread_find(struct task_struct *task);
struct fg_thread *fg_thread_get(struct fg_gate *gate);
struct fg_thread *fg_thread_alloc(struct fg_gate *gate,
				  struct fg_thread *parent, gfp_t gfp);
void fg_thread_put(struct fg_thread *thr);
void fg_thread_adopt(struct fg_thread *heir, struct task_struct *task);
void fg_thread_stand_in(struct fg_clone *clone, struct task_struct *task);
void fg_thread_tell(struct fg_gate *gate, struct fg_thread *thr, u32 outcome);
void fg_outcome(struct fg_gate *gate, struct fg_thread *thr, u32 outcome);
void fg_thread_resume(struct fg_clone *clone);
void fg_thread_unlink(struct fg_thread *thr, bool gone);
int fg_thread_register(struct fg_gate *gate, struct forkgate_register *reg);
int fg_thread_unregister(struct fg_gate *gate);

/* entry.c: K1 to K6, who may be inside a section */
u32 fg_depth_domains(const struct forkgate_slot *slot);
u32 fg_thread_inside(struct fg_thread *thr);
u32 fg_fork_inside(struct fg_gate *gate, struct fg_thread *thr);
void fg_count_inside(struct fg_gate *gate, struct fg_slot *slot, u32 domains);
void fg_uncount(struct fg_gate *gate, struct fg_slot *slot, u32 domains);
void fg_polled_inside(struct fg_gate *gate, struct fg_slot *slot);
void fg_slot_left(struct fg_gate *gate, struct fg_slot *slot);
void fg_release_unbarred(struct fg_gate *gate);
void fg_release_newcomers(struct fg_gate *gate);
void fg_release_blocked(struct fg_gate *gate);
bool fg_any_blocked(struct fg_gate *gate, u32 rank);
bool fg_release_batch(struct fg_gate *gate);
int fg_enter(struct fg_gate *gate, struct forkgate_enter *enter,
	     struct forkgate_enter __user *uenter);
int fg_leave(struct fg_gate *gate, const struct forkgate_leave *leave);

/* phase.c: F2, F4, F6, F7 and K7, who may copy */
bool fg_fork_queued(struct fg_gate *gate, struct fg_thread *thr);
void fg_phase_strict(struct fg_gate *gate);
void fg_phase_join(struct fg_gate *gate, struct fg_thread *thr, u64 now);
void fg_phase_again(struct fg_gate *gate, struct fg_thread *thr, u32 need,
		    enum fg_fork_kind kind, enum fg_fork_driver driver);
void fg_phase_force(struct fg_gate *gate, struct fg_thread *thr);
void fg_phase_leave(struct fg_gate *gate, struct fg_thread *thr);
void fg_phase_run(struct fg_gate *gate);
bool fg_phase_verify(struct fg_gate *gate, struct fg_thread *thr);
bool fg_phase_unready(struct fg_gate *gate);
bool fg_phase_alone(struct fg_gate *gate);
u32 fg_phase_unfenced(struct fg_gate *gate);
bool fg_phase_step(struct fg_gate *gate);
bool fg_phase_may_yield(struct fg_gate *gate);
void fg_phase_yield(struct fg_gate *gate, u64 now);
bool fg_phase_circular(struct fg_gate *gate, struct fg_thread *thr);
void fg_phase_edge(struct fg_gate *gate, struct fg_thread *thr);
void fg_phase_nudge(struct fg_gate *gate, struct fg_thread *thr);
void fg_phase_no_edge(struct fg_gate *gate, struct fg_thread *thr);
void fg_gate_end(struct fg_gate *gate);

/* fence.c: F3 */
void fg_fence(struct fg_gate *gate, u32 domains, u64 opening);

/* timer.c: what happens when time is over, and what has to wait for a context */
void fg_deadline_set(struct fg_gate *gate, struct fg_thread *thr, u64 ns);
void fg_deadline_clear(struct fg_gate *gate, struct fg_thread *thr);
void fg_timer_arm(struct fg_gate *gate);
void fg_timer_kick(struct fg_gate *gate);
void fg_timer_end(struct fg_gate *gate);
void fg_timer(struct timer_list *timer);
void fg_settle_now(struct fg_gate *gate);
void fg_settle_atomic(struct fg_gate *gate);

/* fork.c: clones */
int fg_fork_begin(u64 clone_flags, struct fg_clone *clone);
void fg_fork_copied(struct fg_clone *clone, struct task_struct *child);
void fg_fork_end(struct fg_clone *clone, long ret);
enum fg_past fg_fork_past(const struct fg_fork *fork);
void fg_fork_leave_past(struct fg_gate *gate, struct fg_fork *fork,
			enum fg_past past);
u64 fg_fork_resume(struct fg_fork *fork);
void fg_fork_other(struct fg_gate *gate, struct fg_thread *thr, u32 need,
		   enum fg_fork_kind kind);
void fg_fork_unpoll(struct fg_fork *fork);
int fg_fork_wait(struct fg_gate *gate, struct fg_thread *thr, u64 end);
bool fg_fork_failed(struct fg_gate *gate, struct fg_thread *thr, int why,
		    bool may_proceed, bool quiet);
void fg_fork_drop(struct fg_gate *gate, struct fg_thread *thr);

/* ticket.c: prepare, release, poll */
int fg_prepare(struct fg_gate *gate, struct fg_file *file,
	       struct forkgate_prepare *prepare);
int fg_ticket_release(struct fg_gate *gate);
__poll_t fg_ticket_poll(struct fg_gate *gate, struct fg_file *file);
void fg_poll_notify(struct fg_gate *gate, struct fg_thread *thr);
bool fg_poll_wake(struct fg_gate *gate);
struct fg_file *fg_file_alloc(void);
void fg_file_put(struct fg_file *file);

/* blame.c: who is waited for */
void fg_blame_slot(struct fg_gate *gate, struct fg_slot *slot,
		   struct fg_blame *blame);
bool fg_blame_fork(struct fg_gate *gate, struct fg_thread *thr,
		   struct fg_blame *blame);
void fg_blame_drop(struct fg_blame *blame);
bool fg_may_log(struct fg_gate *gate);
void fg_report_later(struct fg_gate *gate, struct fg_thread *thr,
		     const struct fg_blame *blame, bool bypass);
void fg_report(struct fg_report *report);
const char *fg_comm(char *comm);
int fg_state(struct fg_gate *gate, struct forkgate_state *state);
bool fg_slots_inside(struct fg_gate *gate, u32 *unit,
		     void (*fn)(struct fg_slot *slot, void *arg), void *arg);

/* stats.c: what happened how often, and how long it took */
struct dentry;
extern const char * const fg_event_names[FG_NR_EVENTS];
void fg_count(struct fg_gate *gate, enum fg_event event);
void fg_account(enum fg_time what, u64 ns);
void fg_stats_init(struct dentry *dir);

/* debugfs.c: all gates, for root */
void fg_debugfs_init(void);
void fg_debugfs_exit(void);

/* hook.c: the way into the clone path; only its backend knows how, see hook.h */
int fg_hook_init(void);
void fg_hook_exit(void);
void fg_hook_health(struct forkgate_health *health);
void fg_hook_bypassed(void);
int fg_trials_init(void);
void fg_trials_exit(void);

/* lifecycle.c: fork, exec and exit of tasks */
int fg_lifecycle_init(void);
void fg_lifecycle_exit(void);

/* device.c */
extern atomic_t fg_nr_files;

int fg_device_init(void);
void fg_device_exit(void);

/* step.c: forced schedules, see the list there */
enum fg_step {
	FG_STEP_BEGIN,
	FG_STEP_CLOSE,
	FG_STEP_FENCE,
	FG_STEP_SLEEP,
	FG_STEP_WOKEN,
	FG_STEP_REFUSED,
	FG_STEP_GRANT,
	FG_STEP_COPIED,
	FG_STEP_ENTER,
	FG_STEP_BLOCKED,
	FG_STEP_ADMITTED,
	FG_STEP_LEAVE,
	FG_STEP_RELEASE,
	FG_STEP_PREPARED,
	FG_STEP_ASKED,
	FG_STEP_TRIAL,
	FG_STEP_EXIT,
	FG_NR_STEPS,
};

#ifdef CONFIG_FORKGATE_DEBUG
void fg_step(enum fg_step step);
void fg_step_init(struct dentry *dir);
void fg_step_exit(void);
#else
static inline void fg_step(enum fg_step step) { }
static inline void fg_step_init(struct dentry *dir) { }
static inline void fg_step_exit(void) { }
#endif

/**
 * fg_settle - do what had to wait until the lock was dropped
 * @gate: a referenced gate
 *
 * Context: may sleep.
 */
static inline void fg_settle(struct fg_gate *gate)
{
	might_sleep();
	if (!list_empty_careful(&gate->released) ||
	    !list_empty_careful(&gate->notify))
		fg_settle_now(gate);
}

static inline u64 fg_saturated_add(u64 a, u64 b)
{
	return a + b < a ? FORKGATE_FOREVER : a + b;
}

/**
 * fg_shared_slot - a slot as user space sees it
 * @gate: its gate, not dead; gate->lock is held
 * @nr: its number, with an owner
 *
 * Return: it. User space may write anything there at any time (rule 13).
 */
static inline struct forkgate_slot *fg_shared_slot(struct fg_gate *gate,
						   u32 nr)
{
	lockdep_assert_held(&gate->lock);

	return &gate->units[nr / FORKGATE_UNIT_SLOTS]
			->shared->slots[nr % FORKGATE_UNIT_SLOTS];
}

static inline struct fg_gate *fg_thread_gate(struct fg_thread *thr)
{
	return thr->slot->gate;
}

/* Is @thr the thread that runs with its slot? gate->lock is held. */
static inline bool fg_thread_acts(struct fg_thread *thr)
{
	return thr->slot->actor == thr;
}

#endif /* FG_GATE_H */
