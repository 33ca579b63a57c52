/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * own-phase.pml - the library's own gate: phases, forks inside sections, both domains
 */
#define NT	4
#define NC	4
#ifdef POLLED
#define LOST(t)	(t == 0 && T[t].polled)
#endif
#include "own.pml"

proctype Section(byte me; byte a; byte b)
{
end:	do
	:: enter(me, a);
		if
		:: b -> enter(me, b); leave(me, b)
		:: true
		fi;
		leave(me, a)
	:: break
	od
}

/* forks, also inside a section */
proctype Forker(byte me; byte a; byte need)
{
	bool in;
end:	do
	:: if
	   :: a -> enter(me, a); in = true
	   :: true
	   fi;
		prepare(me, me, need);
		if
		:: E[me].result == GRANTED -> copy(me, me, need)
		:: else -> E[me].result = WAITS
		fi;
	   if
	   :: in -> leave(me, a); in = false
	   :: else
	   fi
	:: break
	od
}

/* enters one domain and, still inside, the other, and forks there */
proctype Nester(byte me; byte a; byte b; byte need)
{
end:	do
	:: enter(me, a);
		enter(me, b);
		prepare(me, me, need);
		if
		:: E[me].result == GRANTED -> copy(me, me, need)
		:: else -> E[me].result = WAITS
		fi;
		leave(me, b);
		leave(me, a)
	:: break
	od
}

/* polls for a ticket, goes in and out of sections meanwhile, and forks inside or not */
proctype Poller(byte me; byte a; byte need)
{
	bool in;
end:	do
	:: d_step { !in -> skip }; enter(me, a); in = true
	:: d_step { in -> skip }; leave(me, a); in = false
	:: poll(me, me, need);
		if
		:: E[me].result == GRANTED -> copy(me, me, need)
		:: else -> E[me].result = WAITS
		fi
	:: !in -> break
	od
}

/* forks without end inside a section */
proctype Stayer(byte me; byte a; byte need)
{
	enter(me, a);
	do
	::	prepare(me, me, need);
		if
		:: E[me].result == GRANTED -> copy(me, me, need)
		:: else -> E[me].result = WAITS
		fi
	od
}

#if defined(YIELD) || defined(QUEUE)
bool lock;

/* a thread in its section needs the lock */
proctype Locker(byte me; byte a)
{
end:	do
	:: enter(me, a);
		atomic { !lock -> lock = true };
		lock = false;
		leave(me, a)
	:: break
	od
}

/* and one that waits outside of sections has it */
proctype Owner(byte me; byte a; byte need)
{
end:	do
	:: atomic { !lock -> lock = true };
		if
		:: a -> enter(me, a); leave(me, a)
		:: else ->
			prepare(me, me, need);
			if
			:: E[me].result == GRANTED -> copy(me, me, need)
			:: else -> E[me].result = WAITS
			fi
		fi;
		lock = false
	:: break
	od
}
#endif

init {
	atomic {
		run Clock();
#ifdef NESTER
		run Forker(0, 0, BOTH);
		run Forker(1, 0, F);
		run Nester(2, M, F, BOTH)
#elif defined(YIELD)
		run Locker(0, M);
		run Owner(1, M, 0);
		run Forker(2, 0, BOTH)
#elif defined(QUEUE)
		run Locker(0, M);
		run Owner(1, 0, F);
		run Forker(2, 0, M);
		run Forker(3, 0, M)
#elif defined(CIRCLES)
#ifdef WIDER
		run Forker(0, M, M);
#else
		run Forker(0, M, BOTH);
#endif
		run Forker(1, F, BOTH);
		run Forker(2, 0, F);
		run Section(3, M, 0)
#elif defined(STAYS)
		run Section(0, F, 0);
		run Stayer(1, M, F);
		run Stayer(2, M, F);
		run Forker(3, 0, M)
#elif defined(POLLED)
		run Poller(0, F, M);
		run Forker(1, M, F);
		run Section(2, M, 0)
#else
		run Section(0, M, F);
		run Section(1, F, M);
		run Forker(2, 0, BOTH);
		run Forker(3, 0, F)
#endif
	}
}

#define BLOCKED_ENTRY(t)	(E[t].state > 0)
#define WAITING_FORK(t)		(T[t].need > 0)
ltl entries { []<> !BLOCKED_ENTRY(0) && []<> !BLOCKED_ENTRY(1) }
ltl forks { []<> !WAITING_FORK(2) && []<> !WAITING_FORK(3) }
