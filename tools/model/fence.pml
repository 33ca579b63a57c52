/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fence.pml - the fast paths, the fence and the scan under weak memory
 */
#define NT	4
#define NS	2
#define STEPWISE
#ifndef ONE_UNIT
#define UNITS
#endif
#define STORES_DELAYED

byte a[4], b[4];		/* what a section writes, first a, then b */
byte seen_a[4], seen_b[4];	/* the same as others see it */
bool running[4];		/* in mm_cpumask */
byte late;			/* the value that closed still has for a thread that has not taken the lock */
bool fencing;			/* gate->fence_mutex */
hidden byte complete;		/* a copy shows either nothing of a section, or all */

/* what FORKER does when it is granted: reads */
#define FENCES(t)	(T[t].state == DRAINING && PUBLISHED && domain[0] == FENCING)
#define FENCE(t) \
	:: d_step { \
		FENCES(t) && T[t].asleep == 0 && !ANY(IS_RELEASED) && !fencing -> \
			fencing = true; \
			late = (mutant(NO_MB) -> late : 0); \
			cpus = running[0] | running[1] << 1 \
	   }; \
	   do \
	   :: d_step { cpus & 1 -> ipi(0); cpus = cpus - 1 } \
	   :: d_step { cpus & 2 -> ipi(1); cpus = cpus - 2 } \
	   :: d_step { cpus == 0 -> fencing = false; fenced(); skip }; break \
	   od \
	:: d_step { mutant(JOIN_UNFENCED) && FENCES(t) && fencing -> fenced(); skip }

#include "gate.pml"

inline commit(t)
{
	T[t].seen = INSIDE(t);
	seen_a[t] = a[t];
	seen_b[t] = b[t];
	late = 0
}

/* t meets a barrier in user mode */
inline cpu_barrier(t)
{
	T[t].seen = INSIDE(t);
	seen_a[t] = a[t];
	seen_b[t] = b[t];
	T[t].views = BIT(HEADER(t)) | late
}

/* the store to closed may stay in the forker's store buffer until its smp_mb() */
inline closes(old, v)
{
	late = ((v) & ~(old) -> BIT(old) : late)
}

inline ipi(t)
{
	if
	:: !mutant(NO_IPI) -> cpu_barrier(t)
	:: else
	fi
}

/* what t wrote in its sections is visible when its leaving is */
inline release(t)
{
	seen_a[t] = (mutant(L1_RELAXED) -> seen_a[t] : a[t]);
	seen_b[t] = (mutant(L1_RELAXED) -> seen_b[t] : b[t]);
	T[t].seen = INSIDE(t)
}

/* another processor reads the depth of t: a store under way is seen or not */
inline look(t)
{
	if
	:: T[t].seen < INSIDE(t) -> T[t].seen = INSIDE(t)
	:: T[t].seen > INSIDE(t) -> release(t)
	:: true
	fi
}

/* t stores to its depth again: the store before has been seen, or never will be */
inline stores_again(t)
{
	look(t)
}

inline switch_out(t)
{
	d_step { cpu_barrier(t); running[t] = false }
}

inline switch_in(t)
{
	d_step { running[t] = true; cpu_barrier(t) }
}

inline write(x, seen_x)
{
	atomic {
		if
		:: x != seen_x -> seen_x = x
		:: true
		fi;
		x = 1 - x
	}
}

inline read(x, seen_x)
{
	if
	:: x != seen_x -> seen_x = x
	:: true
	fi
}

/* thread 0 writes in its sections and does not always run */
proctype Section0()
{
	switch_in(0);
end:	do
	:: enter(0, M);
		write(a[0], seen_a[0]);
		write(b[0], seen_b[0]);
		leave(0, M)
	:: switch_out(0); switch_in(0)
	:: mutant(E3_FIRST) -> MAY_OPEN(0, M); d_step { user_enter(0, M); program_enters(0, M); skip };
		leave(0, M)
	:: mutant(L3_FIRST) -> enter(0, M); MAY_OPEN(0, M); atomic { user_leave(0, M) }
	:: break
	od
}

proctype Section1()
{
	switch_in(1);
end:	do
	:: enter(1, M); leave(1, M)
	:: break
	od
}

proctype Forker(byte t)
{
	byte out, cpus, copy;
end:	do
	:: d_step { begin_fork(t, M); skip };
		wait_fork(t);
		atomic { read(a[0], seen_a[0]); copy = seen_a[0] };
		atomic { read(b[0], seen_b[0]); complete = seen_b[0] == copy; assert(complete); copy = 0 };
		d_step { drop(t); skip }
	:: break
	od
}

init {
	atomic {
		run Section0();
		run Section1();
		run Forker(2);
		run Forker(3)
	}
}

ltl entries { []<> !ENTRY_WAITS(0) && []<> !ENTRY_WAITS(1) }
ltl forks { []<> !FORK_WAITS(2) && []<> !FORK_WAITS(3) }
