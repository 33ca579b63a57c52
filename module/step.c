// SPDX-License-Identifier: GPL-2.0-only
/*
 * step.c - forced schedules for tests: delay or hold tasks at protocol steps
 *
 * Built with CONFIG_FORKGATE_DEBUG only. Through debugfs forkgate/steps; write
 * "NAME delay USEC", "NAME hold", "NAME one", "NAME go" or "reset". All steps
 * except "exit" are reached without locks and may sleep. Must not change what the
 * protocol does.
 */

#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#include "gate.h"

#define FG_MAX_DELAY_US	10000000
#define FG_MAX_ATOMIC_US	1000

static const char * const fg_step_names[FG_NR_STEPS] = {
	[FG_STEP_BEGIN] = "begin",	 /* a redirected clone, before all */
	[FG_STEP_CLOSE] = "close",	 /* F2|F3: closed, not fenced */
	[FG_STEP_FENCE] = "fence",	 /* F3|F4: fenced, not scanned */
	[FG_STEP_SLEEP] = "sleep",	 /* F5: announced, not asleep */
	[FG_STEP_WOKEN] = "woken",	 /* F5: woken, not scanned again */
	[FG_STEP_REFUSED] = "refused",	 /* F5|F6: in vain, its place still there */
	[FG_STEP_GRANT] = "grant",	 /* F4|F6: granted, not copied */
	[FG_STEP_COPIED] = "copied",	 /* F6: copied, not opened */
	[FG_STEP_ENTER] = "enter",	 /* E3|K1 */
	[FG_STEP_BLOCKED] = "blocked",	 /* K3: in the list, not asleep */
	[FG_STEP_ADMITTED] = "admitted", /* counted in, still in the kernel */
	[FG_STEP_LEAVE] = "leave",	 /* L3|K5 */
	[FG_STEP_RELEASE] = "release",	 /* K6, between two batches */
	[FG_STEP_PREPARED] = "prepared", /* a ticket was granted */
	[FG_STEP_ASKED] = "asked",	 /* HEALTH waits for a trial */
	[FG_STEP_TRIAL] = "trial",	 /* a clone was tried, for HEALTH */
	[FG_STEP_EXIT] = "exit",	 /* a thread goes away; atomic */
};

static struct fg_step_state {
	unsigned int delay_us;
	bool held;
	unsigned int one;
	atomic_t waiting;
	atomic_t hits;
} fg_steps[FG_NR_STEPS];

static DECLARE_WAIT_QUEUE_HEAD(fg_step_wait);
static DEFINE_SPINLOCK(fg_step_lock);

/* May a task held at a step go on? "one" lets exactly one of them. */
static bool fg_step_pass(struct fg_step_state *s)
{
	bool pass;

	spin_lock(&fg_step_lock);
	pass = !s->held;
	if (!pass && s->one) {
		s->one--;
		pass = true;
	}
	spin_unlock(&fg_step_lock);
	return pass;
}

/**
 * fg_step - a task comes to a step of the protocol
 * @step: which
 *
 * Context: may sleep, except at FG_STEP_EXIT.
 */
void fg_step(enum fg_step step)
{
	struct fg_step_state *s = &fg_steps[step];
	unsigned int us = READ_ONCE(s->delay_us);

	atomic_inc(&s->hits);
	if (step == FG_STEP_EXIT) {
		if (us)
			udelay(us);
		return;
	}
	if (!us && !READ_ONCE(s->held))
		return;
	/* A caller about to sleep looks again, as after any wake-up. */
	__set_current_state(TASK_RUNNING);
	if (us)
		fsleep(us);
	if (!READ_ONCE(s->held))
		return;
	atomic_inc(&s->waiting);
	wait_event_killable(fg_step_wait, fg_step_pass(s));
	atomic_dec(&s->waiting);
}

static int fg_steps_show(struct seq_file *m, void *unused)
{
	int i;

	for (i = 0; i < FG_NR_STEPS; i++)
		seq_printf(m, "%s delay_us=%u held=%d waiting=%d hits=%d\n",
			   fg_step_names[i], fg_steps[i].delay_us,
			   fg_steps[i].held, atomic_read(&fg_steps[i].waiting),
			   atomic_read(&fg_steps[i].hits));
	return 0;
}

static int fg_steps_open(struct inode *inode, struct file *file)
{
	return single_open(file, fg_steps_show, NULL);
}

static void fg_steps_reset(void)
{
	int i;

	for (i = 0; i < FG_NR_STEPS; i++) {
		fg_steps[i].delay_us = 0;
		fg_steps[i].held = false;
		fg_steps[i].one = 0;
		atomic_set(&fg_steps[i].hits, 0);
	}
}

static int fg_step_command(char *text)
{
	struct fg_step_state *s;
	char *name, *verb;
	unsigned int us;
	int step;

	text = strim(text);
	if (!strcmp(text, "reset")) {
		fg_steps_reset();
		return 0;
	}
	name = strsep(&text, " ");
	verb = strsep(&text, " ");
	step = match_string(fg_step_names, FG_NR_STEPS, name);
	if (step < 0 || !verb)
		return -EINVAL;
	s = &fg_steps[step];

	if (!strcmp(verb, "delay")) {
		if (!text || kstrtouint(text, 0, &us) ||
		    us > (step == FG_STEP_EXIT ? FG_MAX_ATOMIC_US :
						 FG_MAX_DELAY_US))
			return -EINVAL;
		WRITE_ONCE(s->delay_us, us);
	} else if (step == FG_STEP_EXIT || text) {
		return -EINVAL;
	} else if (!strcmp(verb, "hold")) {
		s->one = 0;
		WRITE_ONCE(s->held, true);
	} else if (!strcmp(verb, "one")) {
		s->one++;
	} else if (!strcmp(verb, "go")) {
		WRITE_ONCE(s->held, false);
	} else {
		return -EINVAL;
	}
	return 0;
}

static ssize_t fg_steps_write(struct file *file, const char __user *buf,
			      size_t count, loff_t *pos)
{
	char text[64];
	int ret;

	if (count >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, buf, count))
		return -EFAULT;
	text[count] = 0;
	spin_lock(&fg_step_lock);
	ret = fg_step_command(text);
	spin_unlock(&fg_step_lock);
	wake_up_all(&fg_step_wait);
	return ret ?: count;
}

static const struct file_operations fg_steps_fops = {
	.owner = THIS_MODULE,
	.open = fg_steps_open,
	.read = seq_read,
	.write = fg_steps_write,
	.llseek = seq_lseek,
	.release = single_release,
};

/**
 * fg_step_init - make the file
 * @dir: the module's debugfs directory, which goes with its files
 */
void fg_step_init(struct dentry *dir)
{
	debugfs_create_file("steps", 0600, dir, NULL, &fg_steps_fops);
}

/**
 * fg_step_exit - let all go that are held, before an unload waits for them
 *
 * A trial's worker and a clone that has not looked for its gate yet have no
 * reference to the module, and a test that was killed may have left them held.
 */
void fg_step_exit(void)
{
	spin_lock(&fg_step_lock);
	fg_steps_reset();
	spin_unlock(&fg_step_lock);
	wake_up_all(&fg_step_wait);
}
