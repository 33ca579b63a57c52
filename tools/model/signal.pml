/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * signal.pml - a signal handler that interrupts an entry, a leave or a wait
 */
#define NT	4
#define NS	2

bool handling[NS];	/* the handler of that thread runs */
bool sleeps[NS];	/* that thread sleeps in the kernel */
bool signal[NS];	/* a signal wants it out of there */

#define ASLEEP(t)	sleeps[t] = T[t].entry != 0
#define AWAKE_AGAIN(t)	return_to_user(t)
#define ENTRY_SIGNALS(t) \
		:: d_step { signal[t] && T[t].entry == BLOCKED -> interrupt_entry(t); skip }; \
		   d_step { restart_entry(t); ASLEEP(t); skip }

#ifdef TIMES
#define LIMITED(t)	((t) == 3)
#endif
#include "gate.pml"

inline return_to_user(t)
{
	sleeps[t] = false;
	handling[t] = handling[t] || signal[t];
	signal[t] = false
}

/* K4: the call returns to user mode with the levels, to be restarted */
inline interrupt_entry(t)
{
	g0 = T[t].levels[0];
	g1 = T[t].levels[1];
	T[t].levels[0] = 0;
	T[t].levels[1] = 0;
	T[t].nested = false;
	T[t].entry = 0;
	barrier(t);
	return_to_user(t)
}

inline restart_entry(t)
{
	T[t].levels[0] = g0;
	T[t].levels[1] = g1;
	g0 = 0;
	g1 = 0;
	kernel_enter(t, 0, 0, 0)
}

/* an entry that does not wait, and a leave if it was admitted */
inline try_enter(t, D)
{
	atomic { user_enter(t, D) };
	if			/* E3 */
	:: d_step { MAY_OPEN(t, D) -> program_enters(t, D); skip }
	:: d_step {
		MAY_CLOSED(t, D) ->
			commit(t);
			refresh(t);
			decide(t, D, L0(D), L1(D));
			if
			:: !keep ->	/* K2 */
				let_in(t, D);
				program_enters(t, D)
			:: else ->	/* K3 */
				add_levels(t, -L0(D), -L1(D));
				slot_left(t);
				phase_run();
				refused = true
			fi;
			barrier(t);
			skip
	   }
	fi;
	if
	:: refused -> refused = false
	:: else -> leave(t, D)
	fi
}

proctype Section(byte t; byte d) provided (!handling[t])
{
	byte g0, g1;
end:	do
	:: enter(t, d); leave(t, d)
	:: break
	od
}

proctype Handler(byte t)
{
	byte g0, g1;
	bool refused;
end:	do
	::	if
		:: d_step { !sleeps[t] && !handling[t] -> handling[t] = true }
		:: d_step { sleeps[t] && !handling[t] -> signal[t] = true }; handling[t]
		fi;
		if
		:: enter(t, M); leave(t, M)
		:: enter(t, F); leave(t, F)
		:: try_enter(t, M)
		fi;
		handling[t] = false
	:: break
	od
}

proctype Forker(byte t; byte n)
{
	byte out;
end:	do
	:: fork(t, n)
	:: break
	od
}

init {
	atomic {
		run Section(0, M);
		run Handler(0);
		run Section(1, F);
		run Forker(2, MF);
		run Forker(3, M);
#ifdef TIMES
		run Times()
#endif
	}
}
