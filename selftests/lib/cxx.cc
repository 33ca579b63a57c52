// SPDX-License-Identifier: GPL-2.0-only
/*
 * <forkgate.hpp> with what the standard library has for locks, in C++11 and
 * later, with exceptions and without. Works with any gate and with none. Must not
 * test the functions underneath, whose tests are elsewhere.
 */
#include <forkgate.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <string>
#include <sys/wait.h>
#include <thread>

#define BOTH	FORKGATE_DOMAINS

static int number;
static bool failed;

static void result(bool good, const char *what)
{
	failed |= !good;
	std::printf("%sok %d %s\n", good ? "" : "not ", ++number, what);
	std::fflush(stdout);
}

static void skip(const char *what, const char *why)
{
	std::printf("ok %d # SKIP %s: %s\n", ++number, what, why);
}

/* The depth of the caller's sections, memory * 10 + files */
static unsigned int depth()
{
	return forkgate_self ? forkgate_self->depth[0] * 10 + forkgate_self->depth[1] : 0;
}

static bool labelled(const char *label)
{
	return forkgate_self->site == forkgate_self->label_site &&
	       std::string(forkgate_self->label) == label;
}

/* Does this fail with that error number? In a child, which may end by it */
template <class Function> static bool fails(int error, Function function)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		int got = 0;

#ifdef __cpp_exceptions
		try {
			function();
		} catch (const std::system_error &thrown) {
			got = thrown.code() == std::error_code(error, std::generic_category()) ? 7 : 0;
		}
#else
		function();
#endif
		_exit(got);
	}
	waitpid(pid, &status, 0);
#ifdef __cpp_exceptions
	return WIFEXITED(status) && WEXITSTATUS(status) == 7;
#else
	(void)error;
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
#endif
}

static constexpr forkgate::section memory(FORKGATE_MEMORY, "of memory");
static forkgate::section both(BOTH);
static forkgate::mutex mutex;
static forkgate::recursive_mutex recursive;

static bool sections()
{
	std::lock_guard<const forkgate::section> outer(memory);
	bool good = depth() == 10 && labelled("of memory");
	std::unique_lock<forkgate::section> inner(both, std::defer_lock);

	good &= depth() == 10;
	good &= inner.try_lock() && depth() == 21;
	inner.unlock();
	good &= depth() == 10;
	inner.lock();
	return good && depth() == 21;
}

static bool guards()
{
	forkgate::guard outer(FORKGATE_FILES);
	bool good = depth() == 1;

	{
		forkgate::guard inner(BOTH, "a guard");

		good &= depth() == 12 && labelled("a guard");
	}
	return good && depth() == 1;
}

/* In another thread, which has nothing */
template <class Lockable> static bool busy(Lockable &lockable)
{
	bool locked = false;

	std::thread([&] {
		locked = lockable.try_lock();
		if (locked)
			lockable.unlock();
	}).join();
	return !locked;
}

static void tickets()
{
	const char *what = "a ticket keeps others out, as long as it lasts";
	struct forkgate_policy policy;
	bool good;

	if (forkgate_policy_get(&policy)) {
		skip(what, "no gate");
		return;
	}
	policy.ticket_hold = FORKGATE_TIME_MAX;
	good = !forkgate_policy_set(&policy);
	{
		forkgate::ticket files(FORKGATE_FILES);

		good &= busy(both) && !busy(memory);
	}
	good &= !busy(both);
	result(good, what);
}

static bool mutexes()
{
	bool good = !busy(mutex) && !busy(recursive);

	{
		std::lock_guard<forkgate::mutex> lock(mutex);
		std::lock_guard<forkgate::recursive_mutex> first(recursive);
		std::unique_lock<forkgate::recursive_mutex> second(recursive, std::try_to_lock);

		good &= second.owns_lock() && depth() == 30;
		good &= busy(mutex) && busy(recursive);
		good &= mutex.native_handle() != nullptr;
	}
	return good && !busy(mutex) && !busy(recursive) && !depth();
}

/* A child owns what the forking thread has locked. */
static bool inherited()
{
	std::lock_guard<forkgate::mutex> lock(mutex);
	int status = 1;
	pid_t pid = fork();

	if (!pid) {
		mutex.unlock();
		_exit(mutex.try_lock() && depth() == 10 ? 0 : 2);
	}
	waitpid(pid, &status, 0);
	return status == 0;
}

static bool waits_for_conditions()
{
	std::condition_variable_any turned;
	int turn = 0;
	bool good = true;

	auto player = [&](int own) {
		for (int round = 0; round < 100; round++) {
			std::unique_lock<forkgate::mutex> lock(mutex);

			turned.wait(lock, [&] { return turn % 2 == own; });
			good &= depth() == 10;
			turn++;
			turned.notify_all();
		}
	};
	std::thread other(player, 1);

	player(0);
	other.join();
	return good && turn == 200;
}

/* A thread that waits in std::lock() for a mutex is not inside. */
static bool backs_off()
{
	std::atomic<struct forkgate_slot *> slot(nullptr);
	std::atomic<bool> done(false);
	bool outside = false, good = false;

	mutex.lock();
	std::thread other([&] {
		/* so that there is a slot, with a site that entering changes */
		{ forkgate::guard once(FORKGATE_FILES); }
		forkgate_self->site = 0;
		slot = forkgate_self;
		std::lock(memory, mutex);
		good = depth() == 20;
		mutex.unlock();
		memory.unlock();
		done = true;
	});
	for (int i = 0; i < 3000 && !outside; i++) {
		std::this_thread::sleep_for(std::chrono::milliseconds(10));
		outside = slot.load() &&
			  __atomic_load_n(&slot.load()->site, __ATOMIC_RELAXED) &&
			  !__atomic_load_n(&slot.load()->depth[0], __ATOMIC_RELAXED);
	}
	outside &= !done;
	mutex.unlock();
	other.join();
	return outside && good;
}

/* Threads that take the same in different orders come to an end. */
static bool locks_in_any_order()
{
	static std::mutex ordinary;
	int sum = 0;

	auto add = [&](bool turned_round) {
		for (int i = 0; i < 2000; i++) {
#if __cplusplus >= 201703L
			if (turned_round) {
				std::scoped_lock lock(memory, mutex, ordinary);
				sum++;
			} else {
				std::scoped_lock lock(ordinary, mutex, both);
				sum++;
			}
#else
			if (turned_round)
				std::lock(memory, mutex, ordinary);
			else
				std::lock(ordinary, mutex, memory);
			std::lock_guard<const forkgate::section> first(memory, std::adopt_lock);
			std::lock_guard<forkgate::mutex> second(mutex, std::adopt_lock);
			std::lock_guard<std::mutex> third(ordinary, std::adopt_lock);
			sum++;
#endif
		}
	};
	std::thread other(add, true);

	add(false);
	other.join();
	return sum == 4000 && !depth();
}

int main()
{
	bool of_thread = false;

	std::printf("TAP version 13\n1..11\n");
	std::thread([&] { of_thread = sections() && !depth(); }).join();
	result(sections() && !depth() && of_thread, "sections of two threads");
	result(guards() && !depth(), "guards");
	result(fails(EINVAL, [] { forkgate::guard bad(0); }), "a guard of nothing fails");
	result(fails(EINVAL, [] { forkgate::section(4).try_lock(); }), "a section of nothing fails");
	result(fails(EDEADLK, [] { mutex.lock(); mutex.lock(); }), "to lock an own mutex fails");
	result(mutexes(), "mutexes");
	result(inherited(), "a child owns them");
	result(waits_for_conditions(), "std::condition_variable_any waits for them");
	result(backs_off(), "std::lock() waits for a mutex outside of the section");
	result(locks_in_any_order(), "any order of sections and mutexes");
	tickets();
	return failed;
}
