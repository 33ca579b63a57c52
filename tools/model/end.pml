/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * end.pml - the last mapping goes away while threads wait, hold a ticket or are on their way to the gate
 *
 * A call looks the gate up, and takes its lock later. What the threads do in user mode after the end may be
 * anything that ends: there it would be a page fault.
 */
#define NT	3
#define NS	1
#define ENDS

bool mapped = true;	/* the gate is found: fg_gate_get() */
bool dead;		/* gate->dead */
bool units = true;	/* its units of slots are not freed */
bool polling;		/* thread 1 sleeps in poll() */
bool news;		/* which is to be told: gate->notify */
hidden byte lives;	/* nothing touches units that are freed */

#define DEAD		dead
#define FORK_SIGNALS(t) \
	:: d_step { bounded && TIME_OUT(t) }

inline touch()
{
	lives = units;
	assert(lives)
}

inline notify(t)
{
	news = true
}

#include "gate.pml"

#define CALL(check)	(found && (!dead || mutant(check)))

/* E1 to K6; `gone`: the call has failed, as the gate has */
inline enters(t, D)
{
	atomic { user_enter(t, D) };
	if			/* E3 */
	:: d_step { MAY_OPEN(t, D) -> program_enters(t, D); skip }
	:: d_step { MAY_CLOSED(t, D) -> found = mapped };
		if
		:: atomic { CALL(END_CALLS) ->
			d_step { found = false; kernel_enter(t, D, L0(D), L1(D)); skip };
			do
			:: T[t].entry == 0 -> break
			:: d_step { T[t].entry == RELEASED && !dead -> count_in(t); skip }
			od;
			if
			:: d_step { !dead -> program_enters(t, D); skip }
			:: dead -> gone = true
			fi
		   }
		:: d_step { !CALL(END_CALLS) -> found = false; gone = true }
		fi
	fi
}

/* L1 to K5 */
inline leaves(t, D)
{
	atomic { user_leave(t, D) };
	if			/* L3 */
	:: MAY_OPEN(t, LEFT(t, D))
	:: d_step { MAY_CLOSED(t, LEFT(t, D)) -> found = mapped };
		if
		:: d_step { CALL(END_CALLS) -> found = false; slot_left(t); phase_run(); barrier(t); skip }
		:: d_step { !CALL(END_CALLS) -> found = false; gone = true }
		fi
	fi
}

/* a call that takes a ticket, or gives it back */
inline prepares(t, N, what)
{
	found = mapped;
	if
	:: d_step { CALL(END_JOINS) -> found = false; begin_prepare(t, N, what); skip };
		wait_fork(t)
	:: d_step { !CALL(END_JOINS) -> found = false; out = ENXIO }
	fi
}

inline releases(t)
{
	found = mapped;
	if
	:: d_step { found && !dead && T[t].state != IDLE -> found = false; drop(t); skip }
	:: d_step { !found || dead || T[t].state == IDLE -> found = false }
	fi
}

/* a clone: without a gate it does not wait; a signal may interrupt it once it was granted */
inline clone(t, N)
{
	found = mapped;
	if
	:: d_step { CALL(END_JOINS) -> found = false; begin_fork(t, N); skip };
		wait_fork(t);
		if
		:: d_step { HAS_DOMAIN(t) -> drop(t); skip }
#ifndef POLL
		:: d_step { HAS_DOMAIN(t) -> hold(t); skip }
#endif
		:: !HAS_DOMAIN(t)
		fi
	:: d_step { !CALL(END_JOINS) -> found = false }
	fi
}

proctype Section(byte t; byte d)
{
	bool found, gone;
end:	do
	:: !gone -> enters(t, d);
		if
		:: !gone -> leaves(t, d)
		:: gone
		fi
	:: break
	od
}

#define POLLIN(t)	(T[t].state == TICKET || T[t].state == IDLE || T[t].driver == BY_NUDGE)

/* takes a ticket, or polls for it, and gives it back */
proctype Holder(byte t)
{
	byte out;
	bool bounded, found;
end:	do
	:: true ->
#ifdef POLL
		do
		:: prepares(t, M, POLLS);
			if
			:: out == EAGAIN && T[t].state != IDLE
			:: else -> break
			fi;
			do	/* poll(): it is in the wait queue before it looks */
			:: polling = true;
				if
				:: d_step { !mapped || POLLIN(t) -> polling = false }; break
				:: mapped && !POLLIN(t) -> !polling
				fi
			od
		od;
#else
		prepares(t, M, PREPARES);
#endif
		if
		:: out
		:: !out -> releases(t)
		fi;
		out = 0
	:: break
	od
}

/* whose wait may time out */
proctype Forker(byte t; byte n)
{
	byte out;
	bool bounded, found;
end:	do
	:: if
#ifndef POLL
		:: bounded = true
#endif
		:: bounded = false
		fi;
		clone(t, n);
		d_step { out = 0; bounded = false }
	:: break
	od
}

#define IS_FORKER(t)	(T[t].state != IDLE)

/* a batch: an entry that was released fails, fg_entry_admit(), and a forker is none any more, fg_fork_void() */
inline end_one()
{
	i = 0;
	do
	:: i < NT && T[i].entry == RELEASED ->
		T[i].entry = 0;
		T[i].nested = false;
		T[i].levels[0] = 0;
		T[i].levels[1] = 0;
		break
	:: i < NT && T[i].entry != RELEASED -> i++
	:: i == NT -> break
	od;
	i = 0;
	do
	:: i < NT && T[i].state == IDLE -> i++
	:: i < NT && T[i].state != IDLE ->
		if
		:: T[i].kind == POLLS && !mutant(END_POLLS) -> notify(i)
		:: T[i].kind != POLLS && T[i].driver == BY_CALLER && !mutant(END_FORKS) -> T[i].asleep = 0
		:: else
		fi;
		T[i].state = IDLE;
		T[i].kind = 0;
		T[i].driver = 0;
		T[i].need = 0;
		T[i].order = 0;
		T[i].edge = 0;
		T[i].deadline = false;
		break
	:: i == NT -> break
	od
}

/* fg_gate_detach(), fg_gate_end(), fg_gate_discard() */
proctype Ender()
{
	mapped = false;
	d_step {
		dead = true;
		if
		:: !mutant(END_ENTRIES) -> release_blocked(true)
		:: else
		fi
	};
	do
	:: d_step { ANY(IS_RELEASED) || ANY(IS_FORKER) -> end_one(); skip };
		if
		:: mutant(END_ONE_BATCH) -> break
		:: !mutant(END_ONE_BATCH)
		fi
	:: !ANY(IS_RELEASED) && !ANY(IS_FORKER) -> break
	od;
	if
	:: d_step { news && !mutant(END_UNTOLD) -> news = false; polling = false }
	:: !news || mutant(END_UNTOLD)
	fi;
	units = false
}

/* ends of tickets and places, patience, and those that poll */
proctype Timer()
{
end:	do
	:: d_step { !dead && T[1].deadline -> expire(1); skip }
	:: d_step { !dead && T[2].deadline -> expire(2); skip }
	:: d_step { !dead && PATIENCE_ENDS -> patience_ends(); skip }
	:: d_step { !dead && news -> news = false; polling = false }
	od
}

init {
	atomic {
		run Section(0, M);
		run Holder(1);
#ifdef POLL
		run Forker(2, F);
#else
		run Forker(2, MF);
#endif
		run Timer();
		run Ender()
	}
}
