/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * own-fence.pml - the library's own gate: the fast paths, membarrier and the scan under weak memory
 *
 * One domain. A store of a fast path may stay invisible to others, and a load of closed may return any value that it had
 * since the thread last met a barrier: one of its own, in taking the lock, or that of membarrier.
 */
#define NT	4
#define NC	4
#define NS	2		/* with sections */
#define STORES_DELAYED

bool seen[4];			/* whether the slot counts, as others see it */
byte view[4] = 1;		/* the values of closed that the thread may see, as bits */

inline set_closed(v)
{
	closed = v;
	view[0] = view[0] | 1 << closed;
	view[1] = view[1] | 1 << closed
}

inline stored(t)
{
	seen[t] = T[t].m > 0
}

#include "own.pml"

inline barrier(t)
{
	stored(t);
	view[t] = 1 << closed
}

/* t stores again: others have seen the store before, or never will */
inline stores(t, v)
{
	if
	:: seen[t] != (T[t].m > 0) -> seen[t] = T[t].m > 0
	:: true
	fi;
	T[t].m = v
}

proctype Section(byte me)
{
end:	do
	::	atomic { stores(me, 1) };				/* E1 */
		if							/* E3 */
		:: d_step { view[me] & 1 || mutant(OWN_UNLOOKED) -> goes_in(me, me, M); skip }
		:: view[me] & 2 ->
			d_step { FREE -> barrier(me); come_in(me, me, M); stored(me) };
			do
			:: d_step { FREE && E[me].state && E[me].woken -> barrier(me); look_again(me, me, M); stored(me) }
			:: E[me].state == 0 -> break
			od
		fi;
		atomic { E[me].in = 0; stores(me, 0) };			/* L1 */
		if							/* L3 */
		:: view[me] & 1
		:: view[me] & 2 -> d_step { FREE -> barrier(me); wake_for(me); skip }
		fi
	:: break
	od
}

/* what is stored becomes visible */
proctype Memory()
{
end:	do
	:: d_step { seen[0] != (T[0].m > 0) -> stored(0) }
	:: d_step { seen[1] != (T[1].m > 0) -> stored(1) }
	od
}

/* once round the loop of prepare(), with the lock */
inline look_in_steps(me)
{
	d_step {
		LOOKS(me, me) && FREE ->
			locked = true;
			tick();
			if
			:: !T[me].need -> add_fork(me, me, M)
			:: else
			fi;
			T[me].woken = false;
			join(me);
			fences = T[me].member && !closed && !mutant(OWN_NO_FENCE);
			if
			:: T[me].member && !mutant(OWN_FENCE_FIRST) -> close_gate(me)
			:: else
			fi;
			at = 0;
			skip
	};
	do								/* G2 */
	:: d_step { fences && at < NS -> barrier(at); at++ }
	:: else -> break
	od;
	locked;
	d_step {
		locked ->
		if
		:: T[me].member && mutant(OWN_FENCE_FIRST) -> close_gate(me)
		:: else
		fi;
		scans = MAY_GRANT(me);
		at = (T[me].rescan || !scans -> 0 : T[me].cursor);
		T[me].rescan = T[me].rescan && !scans;
		skip
	};
	do								/* G3 */
	:: scans && at < NS && (at == me || !seen[at] || mutant(OWN_UNSCANNED)) -> at++
	:: else -> break
	od;
	locked;
	d_step {
		locked ->
		if
		:: scans && at == NS -> grant(me)
		:: scans && at < NS -> T[me].cursor = at
		:: else
		fi;
		at = 0;
		scans = false;
		fences = false;
		locked = false
	}
}

proctype Forker(byte me)
{
	byte at;
	bool fences, scans;
end:	do
	::	d_step { FREE -> prepare_at_once(me, me, M); skip };
		do
		:: E[me].result == WAITS -> look_in_steps(me)
		:: E[me].result != WAITS -> break
		od;
		copy(me, me, M)
	:: break
	od
}

init {
	atomic {
		run Clock();
		run Memory();
		run Section(0);
		run Section(1);
		run Forker(2)
#ifndef ONE
		;
		run Forker(3)
#endif
	}
}

ltl entries { []<> !(E[0].state > 0) && []<> !(E[1].state > 0) }
ltl forks { []<> !(T[2].need > 0) && []<> !(T[3].need > 0) }
