// SPDX-License-Identifier: GPL-2.0-only
/*
 * <forkgate.h> in C++11, with what C++ code would make of it. Must not test
 * more than that it compiles, links and runs; works with and without a module.
 */
#include <forkgate.h>

#include <cstdio>
#include <system_error>
#include <thread>

class section {
public:
	explicit section(unsigned int domains, const char *label = nullptr)
		: domains_(domains)
	{
		int err = forkgate_enter(domains);

		if (err)
			throw std::system_error(err, std::generic_category());
		if (label)
			forkgate_label(label);
	}

	~section() { forkgate_leave(domains_); }

	section(const section &) = delete;
	section &operator=(const section &) = delete;

private:
	unsigned int domains_;
};

static int entered;

static void work()
{
	section outer(FORKGATE_MEMORY, "outer");
	section inner(FORKGATE_MEMORY | FORKGATE_FILES);

	entered++;
}

int main()
{
	bool thrown = false;

	std::printf("TAP version 13\n1..1\n");
	work();
	std::thread(work).join();
	try {
		section bad(0);
	} catch (const std::system_error &error) {
		thrown = error.code().value() == EINVAL;
	}
	if (forkgate_tryenter(FORKGATE_FILES) == 0)
		forkgate_leave(FORKGATE_FILES);
	if (forkgate_prepare(FORKGATE_FILES, nullptr) == 0)
		forkgate_release();
	std::printf("%sok 1 sections of two threads in C++\n",
		    entered == 2 && thrown ? "" : "not ");
	return entered == 2 && thrown ? 0 : 1;
}
