// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * Fork-safe sections, tickets and mutexes for C++11 and later
 *
 * Classes around <forkgate.h> and <forksafe_mutex.h>, nothing more: what they
 * say of sections, forks and errors holds here too. Errors are thrown as
 * std::system_error, or end the program by abort() where exceptions are switched
 * off. This file must not contain anything that needs a part of the library of
 * its own: it is compiled into programs.
 *
 * What can throw is inlined, so that blame finds the function that entered, and
 * so that parts of a program with and without exceptions do not share it.
 *
 * A section and an ordinary mutex
 *
 * Enter first, then lock:
 *
 *	forkgate::guard inside(FORKGATE_MEMORY);
 *	std::lock_guard<std::mutex> lock(mutex);
 *
 * std::scoped_lock and std::lock() take both without a deadlock, with
 * forkgate::section too, but in an order of their own: they wait for one, try the
 * others, and give all back if that fails. So no thread waits at the gate with the
 * mutex locked, or for the mutex inside the section. But the mutex may be locked
 * a moment before the section begins, and std::scoped_lock unlocks in an order of
 * its own, too: a fork at such a moment copies a mutex that is locked by nobody.
 * What is changed while both are held is whole in the child; the mutex itself need
 * not be free. Where the child locks it, use the two lines above: a thread that
 * waits for the mutex is inside then and delays forks, as the mutex's owner does.
 * Or use a forkgate::mutex, which is inside a section by itself, and only while it
 * is locked: std::scoped_lock does right with it, beside sections and other mutexes.
 */
#ifndef FORKGATE_HPP
#define FORKGATE_HPP

#include <cstdlib>
#include <system_error>

#include <forkgate.h>
#include <forksafe_mutex.h>

namespace forkgate {

namespace detail {

/* 0, or an error number to throw */
static __always_inline void check(int error)
{
	if (__builtin_expect(!error, 1))
		return;
#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
	throw std::system_error(error, std::generic_category());
#else
	std::abort();
#endif
}

/* The result of a trylock: was it locked? */
static __always_inline bool locked(int error)
{
	if (error == EBUSY)
		return false;
	check(error);
	return true;
}

}

/*
 * Something to lock for std::lock_guard, std::unique_lock and std::scoped_lock.
 * It says what to enter, and has no state: one object serves all threads, which
 * may all be inside. What a thread has locked it must unlock itself.
 */
class section {
public:
	/* domains: FORKGATE_MEMORY, FORKGATE_FILES or both; label: for blame */
	constexpr explicit section(unsigned int domains, const char *label = nullptr) noexcept
		: domains_(domains), label_(label)
	{
	}

	section(const section &) = delete;
	section &operator=(const section &) = delete;

	__always_inline void lock() const
	{
		detail::check(forkgate_enter(domains_));
		name();
	}

	/* Return: false when a fork keeps the caller out. */
	__always_inline bool try_lock() const
	{
		if (!detail::locked(forkgate_tryenter(domains_)))
			return false;
		name();
		return true;
	}

	void unlock() const noexcept
	{
		forkgate_leave(domains_);
	}

private:
	void name() const noexcept
	{
		if (label_)
			forkgate_label(label_);
	}

	unsigned int domains_;
	const char *label_;
};

/* Inside from here to the end of the block */
class guard {
public:
	__always_inline explicit guard(unsigned int domains, const char *label = nullptr)
		: domains_(domains)
	{
		detail::check(forkgate_enter(domains));
		if (label)
			forkgate_label(label);
	}

	~guard()
	{
		forkgate_leave(domains_);
	}

	guard(const guard &) = delete;
	guard &operator=(const guard &) = delete;

private:
	const unsigned int domains_;
};

/*
 * A ticket from here to the end of the block, unless a fork uses it before or
 * it expires. A thread has one ticket at most: the end of an inner block gives
 * back the outer one's, too.
 */
class ticket {
public:
	/* abstime: of CLOCK_MONOTONIC; nullptr: as long as the policy says */
	__always_inline explicit ticket(unsigned int domains = FORKGATE_DOMAINS,
					const struct timespec *abstime = nullptr)
	{
		detail::check(forkgate_prepare(domains, abstime));
	}

	~ticket()
	{
		forkgate_release();
	}

	ticket(const ticket &) = delete;
	ticket &operator=(const ticket &) = delete;
};

/*
 * std::mutex and std::recursive_mutex, of which a child finds only such locked as
 * the thread that forked had locked; it owns those. Like theirs, their objects may
 * be static and are good for use until the process ends.
 *
 * std::condition_variable_any can wait for them. It has parts of its own, which no
 * section covers: in a child do not use one for which threads have waited in the
 * parent. forksafe_cond_wait() with native_handle() has no such limit.
 */
namespace detail {

class any_mutex {
public:
	using native_handle_type = forksafe_mutex_t *;

	any_mutex(const any_mutex &) = delete;
	any_mutex &operator=(const any_mutex &) = delete;

	__always_inline void lock()
	{
		check(forksafe_mutex_lock(&mutex_));
	}

	/* Return: false when it is locked, or a fork keeps the caller out. */
	__always_inline bool try_lock()
	{
		return locked(forksafe_mutex_trylock(&mutex_));
	}

	void unlock() noexcept
	{
		forksafe_mutex_unlock(&mutex_);
	}

	native_handle_type native_handle() noexcept
	{
		return &mutex_;
	}

protected:
	constexpr explicit any_mutex(const forksafe_mutex_t &initial) noexcept : mutex_(initial)
	{
	}

	~any_mutex() = default;

private:
	forksafe_mutex_t mutex_;
};

}

class mutex : public detail::any_mutex {
public:
	constexpr mutex() noexcept : any_mutex(FORKSAFE_MUTEX_INITIALIZER)
	{
	}
};

class recursive_mutex : public detail::any_mutex {
public:
	constexpr recursive_mutex() noexcept : any_mutex(FORKSAFE_RMUTEX_INITIALIZER)
	{
	}
};

}

#endif
