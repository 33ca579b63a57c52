/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * gate.h - the module's private header: its objects, their locks and
 * lifetimes, and what one file offers to the others.
 *
 * Must not know about kprobes (hook.c), tracepoints of other subsystems
 * (lifecycle.c) or kernel versions (compat.h).
 *
 * Lock order, outermost first:
 *
 *	mmap_lock			vm_ops run under it
 *	fg_gate.fence_mutex		one fence of a gate at a time
 *	fg_gate.lock			raw, interrupts off
 *	fg_gate_table.lock		raw, a leaf
 *	fg_thread_table.lock		raw, a leaf
 *	scheduler and timer base locks	wake_up_process(), mod_timer()
 *
 * Locks that probe or tracepoint handlers take are raw because those handlers
 * must not sleep on PREEMPT_RT either.
 */
#ifndef FG_GATE_H
#define FG_GATE_H

#include <linux/atomic.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include <linux/forkgate.h>

#define FG_NR_DOMAINS		2
#define FG_SLOTS_PER_PAGE	(PAGE_SIZE / FORKGATE_SLOT_SIZE)
#define FG_SLOT_PAGES		(FORKGATE_SLOTS / FG_SLOTS_PER_PAGE)
#define FG_NO_SLOT		(-1)

/* Newcomers counted in, or slots scanned, before the gate's lock is dropped */
#define FG_RELEASE_BATCH	16
#define FG_SCAN_BATCH		256

/**
 * enum fg_fork_state - where a forker is
 * @FG_FORK_NONE: not a forker
 * @FG_FORK_QUEUED: in gate->queue, for the next phase
 * @FG_FORK_DRAINING: in gate->phase, waits until others left their sections
 * @FG_FORK_TICKET: in gate->phase, granted, in user mode until the deadline
 * @FG_FORK_COPYING: in gate->phase, the kernel copies
 */
enum fg_fork_state {
	FG_FORK_NONE,
	FG_FORK_QUEUED,
	FG_FORK_DRAINING,
	FG_FORK_TICKET,
	FG_FORK_COPYING,
};

/**
 * enum fg_entry_state - where a thread is that had to wait to enter
 * @FG_ENTRY_NONE: does not wait
 * @FG_ENTRY_BLOCKED: in gate->blocked[] or gate->released
 * @FG_ENTRY_ADMITTED: counted in by whoever released it
 * @FG_ENTRY_VOID: the gate is gone
 */
enum fg_entry_state {
	FG_ENTRY_NONE,
	FG_ENTRY_BLOCKED,
	FG_ENTRY_ADMITTED,
	FG_ENTRY_VOID,
};

/**
 * struct fg_fork - a thread as a forker; all under gate->lock
 * @node: in gate->phase or gate->queue, unless @state is FG_FORK_NONE
 * @state: where it is
 * @need: domains that must be idle for it
 * @cursor: slots below were found idle in @need and stay so
 * @ticket: it is a prepare, not (yet) a clone
 * @nonblock: nobody sleeps for it, the gate's work brings it on; until its
 *	holder was told that it is granted
 * @sleeping: its thread sleeps for it, in fg_fork_wait()
 * @barred: it was granted in this wait and has to be granted again; those that
 *	the first grant kept out go on as soon as it has to wait
 * @turn: its scan is complete, only the other forkers are in its way
 * @kick: woken; checked between announcing the sleep and sleeping
 * @expired: its ticket ran out since; the next clone waits for patience only
 * @unsafe: the policy let its prepare, or its clone, go ahead unsafe
 * @patience: ns, doubles with every yield
 * @deadline: ns, when its place or its ticket ends while in user mode; 0 never
 * @since: ns, when it began to wait
 * @slept: ns it has slept in this wait, across restarts
 * @limit: ns it may sleep in this wait
 * @left_at: user stack pointer of the wait that a signal interrupted last, by
 *	which its restart is known; 0 if there is none. Outlives the place.
 * @left_slept: what that wait had slept
 */
struct fg_fork {
	struct list_head node;
	enum fg_fork_state state;
	u32 need;
	u32 cursor;
	bool ticket;
	bool nonblock;
	bool sleeping;
	bool kick;
	bool turn;
	bool barred;
	bool expired;
	bool unsafe;
	u64 patience;
	u64 deadline;
	u64 since;
	u64 slept;
	u64 limit;
	unsigned long left_at;
	u64 left_slept;
};

/**
 * struct fg_entry - a thread that waits to enter; all under gate->lock
 * @node: in gate->blocked[@nested] or gate->released while FG_ENTRY_BLOCKED
 * @state: where it is
 * @levels: to add to its slot upon admission
 * @since: ns, when it came
 * @nested: it was inside a section already, only a copy keeps it out
 * @let_go: it was released by itself
 * @batch: gate->batch[@nested] when it was blocked; differs once all of
 *	gate->blocked[@nested] was released
 */
struct fg_entry {
	struct list_head node;
	enum fg_entry_state state;
	u32 levels[FG_NR_DOMAINS];
	u64 since;
	bool nested;
	bool let_go;
	u64 batch;
};

struct dentry;
struct fg_gate;

/**
 * struct fg_thread - what the kernel knows of a thread of a gated process
 * @ref: one for being linked, one for every call in progress
 * @rcu: freed after a grace period, the table is read under RCU
 * @hash: in the table of threads, by @task
 * @task: the thread. Not a reference: the exit hook unlinks first
 * @pid: for blame, a reference
 * @gate: a reference, for life
 * @node: in gate->threads while linked; under gate->lock
 * @linked: under gate->lock
 * @slot: its slot, or FG_NO_SLOT; under gate->lock
 * @stand_in: the vfork child that stands for this thread's slot, not a
 *	reference, valid while that child is linked; under gate->lock
 * @stands_for: the other direction, likewise
 * @fork: this thread as a forker
 * @entry: this thread waiting to enter
 * @copying: between grant and return of its clone. This and the next three
 *	belong to the thread itself; vm_ops->open and the fork hook run in it.
 * @vfork: that clone is a vfork
 * @child: the gate made for the child, until the child's mapping takes it
 * @alias: the vfork child's fg_thread, until the child takes it
 *
 * Born by registration or by the first clone of an unregistered thread (or,
 * for the heir of a copied gate, by its parent's clone); unlinked by
 * unregistration, exit, exec or the end of the gate, whichever is first.
 */
struct fg_thread {
	refcount_t ref;
	struct rcu_head rcu;
	struct hlist_node hash;
	struct task_struct *task;
	struct pid *pid;
	struct fg_gate *gate;
	struct list_head node;
	bool linked;
	int slot;
	struct fg_thread *stand_in;
	struct fg_thread *stands_for;
	struct fg_fork fork;
	struct fg_entry entry;
	bool copying;
	bool vfork;
	struct fg_gate *child;
	struct fg_thread *alias;
};

/**
 * struct fg_slot_page - one page of slots
 * @page: the memory, mapped by user space on demand
 * @slots: the same, as the kernel sees it. User space may write anything
 *	there at any time.
 * @used: a bit for every slot that has an owner; under gate->lock
 * @owner: its owner; under gate->lock
 *
 * Lives as long as the gate.
 */
struct fg_slot_page {
	struct page *page;
	struct forkgate_slot *slots;
	u64 used;
	struct fg_thread *owner[FG_SLOTS_PER_PAGE];
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
 * struct fg_gate - the gate of one address space
 * @ref: one for being alive (mapped), one for every fg_thread and every call
 * @free_work: frees it, after a grace period, in process context
 * @hash: in the table of gates, by @mm
 * @mm: whose gate it is; holds mm_count, so that the struct stays valid
 * @lock: protects everything below that does not say otherwise
 * @vmas: mappings; the last one's end is the gate's
 * @dead: no mapping any more: nobody waits here, nothing is promised
 * @header_page: page 0 of the mapping
 * @header: the same, as the kernel sees it; written only
 * @pages: FG_SLOT_PAGES pointers, set once (under @lock), never cleared
 * @top: no slot from here on ever had an owner
 * @threads: linked threads
 * @nr_threads: how many of them have a slot
 * @nr_blocked: entries in @blocked and @released
 * @heir: in a copied gate, the thread that its parent's clone made for it,
 *	until lifecycle.c says which task that is
 * @bypassed: made by a copy that the hook did not see; @heir counts in
 *	fg_copies until it is adopted
 * @closed: what header->closed says
 * @fenced: domains in @closed of which every running thread is known to know
 * @granted: somebody was granted in this phase: no more joining
 * @strict: this phase keeps newcomers of either domain out
 * @phase: the forkers of this phase
 * @queue: the forkers of the next
 * @patience: ns, of this phase; 0 keeps no newcomer out
 * @yield_at: ns, when the drain yields next
 * @closed_at: ns, when this phase began
 * @blocked: entries that wait, [0] newcomers, [1] nested
 * @released: entries let go but not yet counted in. Nothing is granted and
 *	no phase begins while there are any.
 * @batch: counts releases of all of @blocked[i]
 * @timer: yields, and ends places and tickets
 * @fence_mutex: see the lock order; protects nothing but its section
 * @advance: brings tickets on for which nobody sleeps; holds a reference
 * @policy: see forkgate(4)
 * @events: how often each happened
 */
struct fg_gate {
	refcount_t ref;
	struct rcu_work free_work;
	struct hlist_node hash;
	struct mm_struct *mm;

	raw_spinlock_t lock;
	unsigned int vmas;
	bool dead;

	struct page *header_page;
	struct forkgate_header *header;
	struct fg_slot_page **pages;
	u32 top;

	struct list_head threads;
	u32 nr_threads;
	u32 nr_blocked;
	struct fg_thread *heir;
	bool bypassed;

	u32 closed;
	u32 fenced;
	bool granted;
	bool strict;
	struct list_head phase;
	struct list_head queue;
	u64 patience;
	u64 yield_at;
	u64 closed_at;
	struct list_head blocked[2];
	struct list_head released;
	u64 batch[2];

	struct timer_list timer;
	struct mutex fence_mutex;	/* one fence at a time */
	struct work_struct advance;
	struct forkgate_policy policy;
	u64 events[FG_NR_EVENTS];
};

extern struct workqueue_struct *fg_wq;
extern wait_queue_head_t fg_poll_wait;
extern atomic_t fg_copies;

/* mm.c: gates, their pages, their lives */
struct fg_gate *fg_gate_find_rcu(struct mm_struct *mm);
struct fg_gate *fg_gate_get(struct mm_struct *mm);
void fg_gate_put(struct fg_gate *gate);
struct fg_gate *fg_gate_copy(struct fg_thread *thr, gfp_t gfp);
void fg_gate_discard(struct fg_gate *gate);
struct fg_thread *fg_gate_heir(struct fg_gate *gate);
int fg_gate_mmap(struct file *file, struct vm_area_struct *vma);
struct fg_slot_page *fg_slot_page(struct fg_gate *gate, u32 index);
void fg_gates_for_each(void (*fn)(struct fg_gate *gate, void *arg), void *arg);

/* thread.c: threads and slots */
struct fg_thread *fg_thread_find(struct task_struct *task);
struct fg_thread *fg_thread_get(struct fg_gate *gate);
struct fg_thread *fg_thread_alloc(struct fg_gate *gate, gfp_t gfp);
void fg_thread_put(struct fg_thread *thr);
void fg_thread_adopt(struct fg_thread *thr, struct task_struct *task);
void fg_thread_unlink(struct fg_thread *thr, bool gone);
void fg_thread_stand_in(struct fg_thread *parent, struct fg_thread *child,
			struct task_struct *task);
int fg_thread_register(struct fg_gate *gate, struct forkgate_register *reg);
int fg_thread_unregister(struct fg_gate *gate);

/* gate.c: the protocol */
struct forkgate_slot *fg_slot(struct fg_gate *gate, int slot);
u32 fg_slot_inside(const struct forkgate_slot *slot);
struct fg_thread *fg_slot_owner(struct fg_gate *gate, u32 *slot);
void fg_slot_left(struct fg_gate *gate, int slot);
void fg_phase_join(struct fg_gate *gate, struct fg_thread *thr);
void fg_phase_widen(struct fg_gate *gate, struct fg_thread *thr, u32 need);
void fg_phase_unbar(struct fg_gate *gate);
void fg_phase_leave(struct fg_gate *gate, struct fg_thread *thr);
int fg_phase_try(struct fg_gate *gate, struct fg_thread *thr);
bool fg_phase_circular(struct fg_gate *gate, struct fg_thread *thr);
void fg_gate_arm(struct fg_gate *gate);
void fg_gate_advance(struct fg_gate *gate);
void fg_gate_end(struct fg_gate *gate);
void fg_gate_timer(struct timer_list *timer);
bool fg_release(struct fg_gate *gate);
void fg_release_all(struct fg_gate *gate);
int fg_enter(struct fg_gate *gate, struct forkgate_enter *enter,
	     struct forkgate_enter __user *uenter);
int fg_leave(struct fg_gate *gate, const struct forkgate_leave *leave);

/* Results of fg_phase_try() */
#define FG_GRANTED	0
#define FG_WAIT		1 /* somebody is inside, or it is another's turn */
#define FG_MORE		2 /* end of a scan batch: drop the lock, call again */
#define FG_FENCE	3 /* fg_fence(), then call again */

/* fence.c */
int fg_fence(struct fg_gate *gate, u32 need);

/* fork.c: clones and tickets */
int fg_fork_begin(u64 clone_flags, struct fg_thread **thrp);
void fg_fork_end(struct fg_thread *thr, long ret);
void fg_fork_copied(struct fg_thread *thr);
int fg_prepare(struct fg_gate *gate, struct forkgate_prepare *prepare);
int fg_ticket_release(struct fg_gate *gate);
__poll_t fg_ticket_poll(struct fg_gate *gate);
void fg_advance(struct work_struct *work);

/* blame.c: who is waited for */
struct fg_blame {
	struct pid *pid;
	u32 domains;
	u64 site;
	char label[FORKGATE_LABEL_SIZE + 1];
};

void fg_blame_slot(struct fg_gate *gate, u32 slot, struct fg_blame *blame);
bool fg_blame_fork(struct fg_gate *gate, struct fg_thread *thr,
		   struct fg_blame *blame);
void fg_blame_drop(struct fg_blame *blame);
int fg_state(struct fg_gate *gate, struct forkgate_state *state);
void fg_blame_init(void);
void fg_blame_exit(void);

/* stats.c: what happened how often, and how long it took */
extern const char * const fg_event_names[FG_NR_EVENTS];
void fg_count(struct fg_gate *gate, enum fg_event event);
void fg_took(enum fg_time what, u64 ns);
void fg_stats_init(struct dentry *dir);

/* hook.c: the way into the clone path; the only file that knows how */
struct kernel_clone_args;
int fg_hook_init(void);
void fg_hook_exit(void);
void fg_hook_health(struct forkgate_health *health);
void fg_hook_bypassed(void);

/* lifecycle.c: fork, exec and exit of tasks */
int fg_lifecycle_init(void);
void fg_lifecycle_exit(void);

/* device.c */
int fg_device_init(void);
void fg_device_exit(void);

/* step.c: forced schedules, see the list there */
enum fg_step {
	FG_STEP_BEGIN,
	FG_STEP_CLOSE,
	FG_STEP_FENCE,
	FG_STEP_SLEEP,
	FG_STEP_WOKEN,
	FG_STEP_GRANT,
	FG_STEP_COPIED,
	FG_STEP_ENTER,
	FG_STEP_BLOCKED,
	FG_STEP_ADMITTED,
	FG_STEP_LEAVE,
	FG_STEP_RELEASE,
	FG_STEP_PREPARED,
	FG_STEP_EXIT,
	FG_NR_STEPS,
};

#ifdef CONFIG_FORKGATE_DEBUG
void fg_step(enum fg_step step);
void fg_step_init(struct dentry *dir);
#else
static inline void fg_step(enum fg_step step) { }
static inline void fg_step_init(struct dentry *dir) { }
#endif

static inline u64 fg_saturated_add(u64 a, u64 b)
{
	return a + b < a ? FORKGATE_FOREVER : a + b;
}

#endif /* FG_GATE_H */
