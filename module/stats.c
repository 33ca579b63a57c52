// SPDX-License-Identifier: GPL-2.0-only
/*
 * stats.c - how often things happened on this machine, and how long they took
 *
 * For root, in debugfs. Counted per processor, and only where a thread had to
 * wait or a gate was closed anyway. Nothing may be decided by these numbers.
 */

#include <linux/debugfs.h>
#include <linux/percpu.h>
#include <linux/seq_file.h>

#include "gate.h"

/* Bucket n of a histogram is for times below 2^(FG_SHORTEST + n) ns. */
#define FG_SHORTEST	10
#define FG_NR_BUCKETS	32

struct fg_histogram {
	u64 sum;
	u64 buckets[FG_NR_BUCKETS];
};

static DEFINE_PER_CPU(u64[FG_NR_EVENTS], fg_events);
static DEFINE_PER_CPU(struct fg_histogram[FG_NR_TIMES], fg_times);

/* As the fields of struct forkgate_state */
const char * const fg_event_names[FG_NR_EVENTS] = {
	[FG_EVENT_FORK] = "forks",
	[FG_EVENT_PHASE] = "phases",
	[FG_EVENT_YIELD] = "yields",
	[FG_EVENT_EXPIRE] = "expired",
	[FG_EVENT_TIMEOUT] = "timeouts",
	[FG_EVENT_DEADLOCK] = "deadlocks",
	[FG_EVENT_UNSAFE] = "unsafe",
	[FG_EVENT_ABANDON] = "abandoned",
	[FG_EVENT_BYPASS] = "bypasses",
};

static const char * const fg_time_names[FG_NR_TIMES] = {
	[FG_TIME_FORK] = "fork_wait",
	[FG_TIME_ENTRY] = "entry_wait",
	[FG_TIME_PHASE] = "phase",
};

/**
 * fg_count - something happened
 * @gate: where; gate->lock is held
 * @event: what
 */
void fg_count(struct fg_gate *gate, enum fg_event event)
{
	lockdep_assert_held(&gate->lock);

	gate->events[event]++;
	this_cpu_inc(fg_events[event]);
}

/**
 * fg_account - account a duration
 * @what: of what
 * @ns: how long
 *
 * Context: any.
 */
void fg_account(enum fg_time what, u64 ns)
{
	u32 bucket = min(fls64(ns >> FG_SHORTEST), FG_NR_BUCKETS - 1);

	this_cpu_inc(fg_times[what].buckets[bucket]);
	this_cpu_add(fg_times[what].sum, ns);
}

static u64 fg_bucket_sum(enum fg_time what, int bucket)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu(fg_times, cpu)[what].buckets[bucket]);
	return sum;
}

/* One line: NAME sum_ns=N, then for each bucket that is not empty BELOW=N */
static void fg_time_show(struct seq_file *m, enum fg_time what)
{
	u64 count, sum = 0;
	int cpu, i;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu(fg_times, cpu)[what].sum);
	seq_printf(m, "%s sum_ns=%llu", fg_time_names[what], sum);
	for (i = 0; i < FG_NR_BUCKETS; i++) {
		count = fg_bucket_sum(what, i);
		if (!count)
			continue;
		if (i == FG_NR_BUCKETS - 1)
			seq_printf(m, " inf=%llu", count);
		else
			seq_printf(m, " %llu=%llu", 1ULL << (FG_SHORTEST + i),
				   count);
	}
	seq_putc(m, '\n');
}

static int stats_show(struct seq_file *m, void *unused)
{
	struct forkgate_health health = {};
	int i, cpu;
	u64 sum;

	fg_hook_health(&health);
	seq_printf(m, "armed %u\nclones %llu\nredirects %llu\n", health.armed,
		   health.clones, health.redirects);
	for (i = 0; i < FG_NR_EVENTS; i++) {
		sum = 0;
		for_each_possible_cpu(cpu)
			sum += READ_ONCE(per_cpu(fg_events, cpu)[i]);
		seq_printf(m, "%s %llu\n", fg_event_names[i], sum);
	}
	for (i = 0; i < FG_NR_TIMES; i++)
		fg_time_show(m, i);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

/**
 * fg_stats_init - make the file
 * @dir: the module's debugfs directory, which goes with its files
 */
void fg_stats_init(struct dentry *dir)
{
	debugfs_create_file("stats", 0400, dir, NULL, &stats_fops);
}
