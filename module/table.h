/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * table.h - the hash tables of gates and of threads
 *
 * Changed under a bucket's lock, read under RCU. There is no lock for a whole
 * table, so that processes do not wait for each other's (rule 13).
 */
#ifndef FG_TABLE_H
#define FG_TABLE_H

#include <linux/hash.h>
#include <linux/rculist.h>
#include <linux/spinlock.h>

struct fg_table_bucket {
	struct hlist_head head;
	raw_spinlock_t lock;
};

/* The bucket of a key in a table of 1 << @bits */
static inline struct fg_table_bucket *
fg_table_bucket(struct fg_table_bucket *table, unsigned int bits,
		const void *key)
{
	return &table[hash_ptr(key, bits)];
}

static inline void fg_table_init(struct fg_table_bucket *table,
				 unsigned int bits)
{
	int i;

	for (i = 0; i < 1 << bits; i++)
		raw_spin_lock_init(&table[i].lock);
}

static inline void fg_table_add(struct fg_table_bucket *bucket,
				struct hlist_node *node)
{
	unsigned long irq;

	raw_spin_lock_irqsave(&bucket->lock, irq);
	hlist_add_head_rcu(node, &bucket->head);
	raw_spin_unlock_irqrestore(&bucket->lock, irq);
}

static inline void fg_table_del(struct fg_table_bucket *bucket,
				struct hlist_node *node)
{
	unsigned long irq;

	raw_spin_lock_irqsave(&bucket->lock, irq);
	hlist_del_init_rcu(node);
	raw_spin_unlock_irqrestore(&bucket->lock, irq);
}

#endif /* FG_TABLE_H */
