/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * trace.h - rule 12: the tracepoints forkgate:*, documented in forkgate(4)
 *
 * Thread ids are those of the initial pid namespace. Times are nanoseconds.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM forkgate

#if !defined(FG_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define FG_TRACE_H

#include <linux/tracepoint.h>

#include "gate.h"

#define fg_show_domains(domains)			\
	__print_flags(domains, ",",			\
		      { FORKGATE_MEMORY, "memory" },	\
		      { FORKGATE_FILES, "files" })

DECLARE_EVENT_CLASS(fork_class,
	TP_PROTO(const struct fg_thread *thr, u32 domains),
	TP_ARGS(thr, domains),
	TP_STRUCT__entry(
		__field(const void *, gate)
		__field(pid_t, forker)
		__field(u32, domains)
		__field(bool, ticket)
		__field(bool, granted)
	),
	TP_fast_assign(
		__entry->gate = thr->slot->gate;
		__entry->forker = pid_nr(thr->pid);
		__entry->domains = domains;
		__entry->ticket = thr->fork.kind != FG_CLONE;
		__entry->granted = thr->fork.state != FG_FORK_WAITING;
	),
	TP_printk("gate=%p forker=%d domains=%s ticket=%d granted=%d",
		  __entry->gate, __entry->forker,
		  fg_show_domains(__entry->domains), __entry->ticket,
		  __entry->granted)
);

/* A forker closed the gate for what it needs, or joined those who did. */
DEFINE_EVENT(fork_class, close,
	TP_PROTO(const struct fg_thread *thr, u32 domains),
	TP_ARGS(thr, domains)
);

/* A ticket, or the place of an interrupted fork, ran out in user mode. */
DEFINE_EVENT(fork_class, expire,
	TP_PROTO(const struct fg_thread *thr, u32 domains),
	TP_ARGS(thr, domains)
);

/* All others are outside: the clone copies, or the ticket's holder goes on. */
TRACE_EVENT(grant,
	TP_PROTO(const struct fg_thread *thr, u32 domains, u64 waited),
	TP_ARGS(thr, domains, waited),
	TP_STRUCT__entry(
		__field(const void *, gate)
		__field(pid_t, forker)
		__field(u32, domains)
		__field(bool, ticket)
		__field(u64, waited)
	),
	TP_fast_assign(
		__entry->gate = thr->slot->gate;
		__entry->forker = pid_nr(thr->pid);
		__entry->domains = domains;
		__entry->ticket = thr->fork.kind != FG_CLONE;
		__entry->waited = waited;
	),
	TP_printk("gate=%p forker=%d domains=%s ticket=%d waited=%llu",
		  __entry->gate, __entry->forker,
		  fg_show_domains(__entry->domains), __entry->ticket,
		  __entry->waited)
);

DECLARE_EVENT_CLASS(gate_class,
	TP_PROTO(const struct fg_gate *gate, u64 ns),
	TP_ARGS(gate, ns),
	TP_STRUCT__entry(
		__field(const void *, gate)
		__field(u32, blocked)
		__field(u64, ns)
	),
	TP_fast_assign(
		__entry->gate = gate;
		__entry->blocked = gate->nr_blocked;
		__entry->ns = ns;
	),
	TP_printk("gate=%p blocked=%u closed=%llu", __entry->gate,
		  __entry->blocked, __entry->ns)
);

/* A drain lets the newcomers blocked so far through: its patience now */
DEFINE_EVENT_PRINT(gate_class, yield,
	TP_PROTO(const struct fg_gate *gate, u64 ns),
	TP_ARGS(gate, ns),
	TP_printk("gate=%p blocked=%u patience=%llu", __entry->gate,
		  __entry->blocked, __entry->ns)
);

/* The last forker of a phase is done: how long the gate was closed */
DEFINE_EVENT(gate_class, open,
	TP_PROTO(const struct fg_gate *gate, u64 ns),
	TP_ARGS(gate, ns)
);

/* A wait ended without a grant: time-out, or it would have been a circle. */
TRACE_EVENT(timeout,
	TP_PROTO(const struct fg_thread *thr, u32 domains, u64 waited,
		 const struct fg_blame *blame),
	TP_ARGS(thr, domains, waited, blame),
	TP_STRUCT__entry(
		__field(const void *, gate)
		__field(pid_t, forker)
		__field(u32, domains)
		__field(u64, waited)
		__field(pid_t, holder)
		__field(u32, inside)
		__field(u64, site)
		__array(char, label, FORKGATE_LABEL_SIZE + 1)
	),
	TP_fast_assign(
		__entry->gate = thr->slot->gate;
		__entry->forker = pid_nr(thr->pid);
		__entry->domains = domains;
		__entry->waited = waited;
		__entry->holder = pid_nr(blame->pid);
		__entry->inside = blame->domains;
		__entry->site = blame->site;
		memcpy(__entry->label, blame->label, sizeof(__entry->label));
	),
	TP_printk("gate=%p forker=%d domains=%s waited=%llu holder=%d inside=%s site=%#llx label=%s",
		  __entry->gate, __entry->forker,
		  fg_show_domains(__entry->domains), __entry->waited,
		  __entry->holder, fg_show_domains(__entry->inside),
		  __entry->site, __entry->label)
);

/* A thread went away inside a section, or with a ticket (domains empty). */
TRACE_EVENT(abandon,
	TP_PROTO(const struct fg_thread *thr, const struct fg_blame *blame),
	TP_ARGS(thr, blame),
	TP_STRUCT__entry(
		__field(const void *, gate)
		__field(pid_t, thread)
		__field(u32, domains)
		__field(u64, site)
		__array(char, label, FORKGATE_LABEL_SIZE + 1)
	),
	TP_fast_assign(
		__entry->gate = thr->slot->gate;
		__entry->thread = pid_nr(thr->pid);
		__entry->domains = blame->domains;
		__entry->site = blame->site;
		memcpy(__entry->label, blame->label, sizeof(__entry->label));
	),
	TP_printk("gate=%p thread=%d domains=%s site=%#llx label=%s",
		  __entry->gate, __entry->thread,
		  fg_show_domains(__entry->domains), __entry->site,
		  __entry->label)
);

/* A copy of a gated process that the hook had not seen. */
TRACE_EVENT(bypass,
	TP_PROTO(const struct fg_gate *gate),
	TP_ARGS(gate),
	TP_STRUCT__entry(
		__field(const void *, gate)
		__field(pid_t, forker)
	),
	TP_fast_assign(
		__entry->gate = gate;
		__entry->forker = task_pid_nr(current);
	),
	TP_printk("gate=%p forker=%d", __entry->gate, __entry->forker)
);

/* A thread has to wait before it may enter. */
TRACE_EVENT(enter_wait,
	TP_PROTO(const struct fg_thread *thr, u32 domains, bool nested),
	TP_ARGS(thr, domains, nested),
	TP_STRUCT__entry(
		__field(const void *, gate)
		__field(pid_t, thread)
		__field(u32, domains)
		__field(bool, nested)
	),
	TP_fast_assign(
		__entry->gate = thr->slot->gate;
		__entry->thread = pid_nr(thr->pid);
		__entry->domains = domains;
		__entry->nested = nested;
	),
	TP_printk("gate=%p thread=%d domains=%s nested=%d", __entry->gate,
		  __entry->thread, fg_show_domains(__entry->domains),
		  __entry->nested)
);

/* It goes on: inside if error is 0, otherwise it was interrupted. */
TRACE_EVENT(enter_go,
	TP_PROTO(const struct fg_thread *thr, u32 domains, int error,
		 u64 waited),
	TP_ARGS(thr, domains, error, waited),
	TP_STRUCT__entry(
		__field(const void *, gate)
		__field(pid_t, thread)
		__field(u32, domains)
		__field(int, error)
		__field(u64, waited)
	),
	TP_fast_assign(
		__entry->gate = thr->slot->gate;
		__entry->thread = pid_nr(thr->pid);
		__entry->domains = domains;
		__entry->error = error;
		__entry->waited = waited;
	),
	TP_printk("gate=%p thread=%d domains=%s error=%d waited=%llu",
		  __entry->gate, __entry->thread,
		  fg_show_domains(__entry->domains), __entry->error,
		  __entry->waited)
);

#endif /* FG_TRACE_H */

#undef TRACE_INCLUDE_PATH
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE trace

#include <trace/define_trace.h>
