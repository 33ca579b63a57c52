/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * slow_file.h - a program that loads slowly: its exec() stands still between
 * the new address space and the end of the exec until the test lets it go on
 *
 * A file system of one file, served through /dev/fuse by a thread of the test.
 * Reads of the program's first page are answered at once. The page in which its
 * data ends, which the kernel reads to clear what follows, is held back. It must
 * know nothing of gates.
 */
#ifndef TEST_SLOW_FILE_H
#define TEST_SLOW_FILE_H

#include "proc.h"

#include <elf.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define NO_SLOW_FILE	"no FUSE, or not root"

#define SLOW_INODE	2
#define SLOW_DATA	0x100000UL	/* offset of the page that is slow */
#define SLOW_SIZE	(SLOW_DATA + 16)
#define SLOW_STATUS	7		/* what the program exits with */

/* Code that exits: its status and the number of the call in registers, and the call */
#ifdef __aarch64__
#define SLOW_MACHINE	EM_AARCH64
#define SLOW_CODE	(0x52800000 | SLOW_STATUS << 5), 0xd2800ba8, 0xd4000001
#else
#define SLOW_MACHINE	EM_X86_64
#define SLOW_CODE	(0xbf | SLOW_STATUS << 8), 0x003cb800, 0x050f0000
#endif

static struct slow_file {
	char dir[32];
	char path[48];
	int fuse;
	pthread_t thread;
	int reached;	/* an exec() stands still */
	int go;		/* a latch that lets it, and later ones, go on */
	bool mounted;
} slow_file = { .fuse = -1 };

/* The first page of the program: headers, and code that exits */
static inline void slow_file_program(char *page)
{
	static const unsigned int code[] = { SLOW_CODE };
	Elf64_Ehdr *header = (void *)page;
	Elf64_Phdr *segment = (void *)(page + sizeof(*header));

	memset(page, 0, 4096);
	*header = (Elf64_Ehdr){
		.e_ident = {
			ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT,
		},
		.e_type = ET_EXEC,
		.e_machine = SLOW_MACHINE,
		.e_version = EV_CURRENT,
		.e_entry = 0x400800,
		.e_phoff = sizeof(*header),
		.e_ehsize = sizeof(*header),
		.e_phentsize = sizeof(*segment),
		.e_phnum = 2,
	};
	segment[0] = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_flags = PF_R | PF_X,
		.p_vaddr = 0x400000,
		.p_filesz = 4096,
		.p_memsz = 4096,
		.p_align = 4096,
	};
	segment[1] = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_flags = PF_R | PF_W,
		.p_offset = SLOW_DATA,
		.p_vaddr = 0x600000,
		.p_filesz = SLOW_SIZE - SLOW_DATA,
		.p_memsz = 4096,
		.p_align = 4096,
	};
	memcpy(page + 0x800, code, sizeof(code));
}

static inline void slow_file_attr(struct fuse_attr *attr, uint64_t inode)
{
	*attr = (struct fuse_attr){
		.ino = inode,
		.size = inode == SLOW_INODE ? SLOW_SIZE : 0,
		.mode = inode == SLOW_INODE ? S_IFREG | 0755 : S_IFDIR | 0755,
		.nlink = 1,
	};
}

static inline void slow_file_reply(uint64_t unique, int error, const void *data, size_t size)
{
	char reply[sizeof(struct fuse_out_header) + 8192];
	struct fuse_out_header *header = (void *)reply;

	*header = (struct fuse_out_header){
		.len = sizeof(*header) + size,
		.error = error,
		.unique = unique,
	};
	memcpy(header + 1, data, size);
	if (write(slow_file.fuse, reply, header->len) < 0)
		return;
}

static inline void slow_file_read(const struct fuse_in_header *in)
{
	const struct fuse_read_in *read = (void *)(in + 1);
	char page[4096];
	uint64_t left;

	memset(page, 0, sizeof(page));
	if (!read->offset) {
		slow_file_program(page);
	} else if (read->offset >= SLOW_DATA) {
		__atomic_store_n(&slow_file.reached, 1, __ATOMIC_SEQ_CST);
		latch_wait(&slow_file.go);
	}
	left = read->offset < SLOW_SIZE ? SLOW_SIZE - read->offset : 0;
	if (left > read->size)
		left = read->size;
	slow_file_reply(in->unique, 0, page, left < sizeof(page) ? left : sizeof(page));
}

static inline void *slow_file_serve(void *unused)
{
	static char request[65536];
	const struct fuse_in_header *in = (void *)request;
	struct fuse_entry_out entry = { .nodeid = SLOW_INODE };
	struct fuse_attr_out attr = {};
	struct fuse_open_out opened = {};
	struct fuse_init_out init = {
		.major = FUSE_KERNEL_VERSION,
		.minor = 31,
		.max_write = 4096,
	};

	for (;;) {
		if (read(slow_file.fuse, request, sizeof(request)) <= 0) {
			if (errno == EINTR || errno == ENOENT || errno == EAGAIN)
				continue;
			return NULL;
		}
		switch (in->opcode) {
		case FUSE_INIT:
			slow_file_reply(in->unique, 0, &init, sizeof(init));
			break;
		case FUSE_LOOKUP:
			slow_file_attr(&entry.attr, SLOW_INODE);
			slow_file_reply(in->unique, 0, &entry, sizeof(entry));
			break;
		case FUSE_GETATTR:
			slow_file_attr(&attr.attr, in->nodeid);
			slow_file_reply(in->unique, 0, &attr, sizeof(attr));
			break;
		case FUSE_OPEN:
			slow_file_reply(in->unique, 0, &opened, sizeof(opened));
			break;
		case FUSE_READ:
			slow_file_read(in);
			break;
		case FUSE_RELEASE:
			slow_file_reply(in->unique, 0, NULL, 0);
			break;
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
		case FUSE_INTERRUPT:
			break;
		default:
			slow_file_reply(in->unique, -ENOSYS, NULL, 0);
		}
	}
}

/* slow_file_mount - 0 or a negative errno; -ENODEV where there is no FUSE, or no right to mount */
static inline int slow_file_mount(void)
{
	char options[80];
	int ret;

	/* Some distributions have no device before the module. */
	if (access("/dev/fuse", F_OK) && system("modprobe -q fuse"))
		return -ENODEV;
	slow_file.fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (slow_file.fuse < 0)
		return errno == ENOENT || errno == EACCES ? -ENODEV : -errno;
	snprintf(slow_file.dir, sizeof(slow_file.dir), "/tmp/forkgate.XXXXXX");
	if (!mkdtemp(slow_file.dir))
		return -errno;
	snprintf(slow_file.path, sizeof(slow_file.path), "%s/program", slow_file.dir);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0",
		 slow_file.fuse);
	if (mount("forkgate", slow_file.dir, "fuse", 0, options))
		return errno == EPERM ? -ENODEV : -errno;
	slow_file.mounted = true;
	ret = pthread_create(&slow_file.thread, NULL, slow_file_serve, NULL);
	return -ret;
}

/* slow_file_go_on - let the exec() that stands still go on */
static inline void slow_file_go_on(void)
{
	latch_open(&slow_file.go);
}

static inline void slow_file_unmount(void)
{
	slow_file_go_on();
	if (slow_file.mounted)
		umount2(slow_file.dir, MNT_DETACH);
	if (slow_file.dir[0])
		rmdir(slow_file.dir);
}

/* slow_file_exec - become the program; returns a negative errno */
static inline long slow_file_exec(void)
{
	char *const none[] = { slow_file.path, NULL };

	syscall(__NR_execve, slow_file.path, none, none + 1);
	return -errno;
}

#endif /* TEST_SLOW_FILE_H */
