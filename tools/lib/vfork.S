/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * vfork(), preparing if it has to
 *
 * The child runs on the caller's stack and returns first, so vfork() cannot be
 * written in C, nor may it call the original: nothing that is needed again may
 * be on the stack while the child runs, the return address included. Machines
 * that have no code here keep their vfork(), which waits in the kernel; that is
 * harmless as libc takes no locks for it.
 *
 * __forkgate_vfork_begin(error, which), first called with 0, then with the error of
 * the system call, says which vfork() of the thread this is, or what to return (-1).
 * __forkgate_vfork_child(which) is for the child, __forkgate_vfork_end(pid, which) for
 * the parent, when its child has gone its way; it says 0, or what to begin with once
 * more. The kernel leaves the register alone that has "which": %rsi, %edx or w9.
 */
#include <sys/syscall.h>

#ifdef FORKGATE_SHARED
#define NAME vfork
#else
#define NAME __wrap_vfork
#endif

/* what begins a vfork(), and what ends it */
.macro	function
	.text
	.globl	NAME
#ifndef FORKGATE_SHARED
	.hidden	NAME
#endif
	.hidden	__forkgate_vfork_begin
	.hidden	__forkgate_vfork_child
	.hidden	__forkgate_vfork_end
	.type	NAME, @function
	.p2align 4
NAME:
	.cfi_startproc
.endm

.macro	function_end
	.cfi_endproc
	.size	NAME, . - NAME
.endm

#if defined(__x86_64__) || defined(__i386__)

/* endbr, and the note that this file is ready for IBT and shadow stacks */
#include <cet.h>

	function
#ifdef __x86_64__
	_CET_ENDBR
	xorl	%edi, %edi
.Lbegin:
	subq	$8, %rsp
	.cfi_adjust_cfa_offset 8
	call	__forkgate_vfork_begin
	addq	$8, %rsp
	.cfi_adjust_cfa_offset -8
	testl	%eax, %eax
	js	.Lreturn

	movl	%eax, %esi
	popq	%rdi
	.cfi_adjust_cfa_offset -8
	.cfi_register %rip, %rdi
	movl	$SYS_vfork, %eax
	syscall
	pushq	%rdi
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rip, 0

	testl	%eax, %eax
	jz	.Lchild
	cmpl	$-4096, %eax
	jbe	.Lparent
	movl	%eax, %edi
	negl	%edi
	jmp	.Lbegin

.Lparent:
	pushq	%rax
	.cfi_adjust_cfa_offset 8
	pushq	%rsi
	.cfi_adjust_cfa_offset 8
	subq	$8, %rsp
	.cfi_adjust_cfa_offset 8
	movl	%eax, %edi
	call	__forkgate_vfork_end
	movl	%eax, %edi
	addq	$8, %rsp
	.cfi_adjust_cfa_offset -8
	popq	%rsi
	.cfi_adjust_cfa_offset -8
	popq	%rax
	.cfi_adjust_cfa_offset -8
	testl	%edi, %edi
	jnz	.Lbegin
.Lreturn:
	ret

	/* A ret would pop the shadow stack, which the parent needs. */
.Lchild:
	subq	$8, %rsp
	.cfi_adjust_cfa_offset 8
	movl	%esi, %edi
	call	__forkgate_vfork_child
	addq	$8, %rsp
	.cfi_adjust_cfa_offset -8
	xorl	%eax, %eax
	popq	%rdi
	.cfi_adjust_cfa_offset -8
	.cfi_register %rip, %rdi
	notrack jmp *%rdi
#else
	_CET_ENDBR
	xorl	%eax, %eax
.Lbegin:
	subl	$12, %esp
	.cfi_adjust_cfa_offset 12
	movl	%eax, (%esp)
	movl	%edx, 4(%esp)
	call	__forkgate_vfork_begin
	addl	$12, %esp
	.cfi_adjust_cfa_offset -12
	testl	%eax, %eax
	js	.Lreturn

	movl	%eax, %edx
	popl	%ecx
	.cfi_adjust_cfa_offset -4
	.cfi_register %eip, %ecx
	movl	$SYS_vfork, %eax
	int	$0x80
	pushl	%ecx
	.cfi_adjust_cfa_offset 4
	.cfi_rel_offset %eip, 0

	testl	%eax, %eax
	jz	.Lchild
	cmpl	$-4096, %eax
	jbe	.Lparent
	negl	%eax
	jmp	.Lbegin

.Lparent:
	subl	$28, %esp
	.cfi_adjust_cfa_offset 28
	movl	%eax, (%esp)
	movl	%edx, 4(%esp)
	movl	%eax, 16(%esp)
	movl	%edx, 20(%esp)
	call	__forkgate_vfork_end
	movl	%eax, %ecx
	movl	16(%esp), %eax
	movl	20(%esp), %edx
	addl	$28, %esp
	.cfi_adjust_cfa_offset -28
	testl	%ecx, %ecx
	jz	.Lreturn
	movl	%ecx, %eax
	jmp	.Lbegin
.Lreturn:
	ret

.Lchild:
	subl	$12, %esp
	.cfi_adjust_cfa_offset 12
	movl	%edx, (%esp)
	call	__forkgate_vfork_child
	addl	$12, %esp
	.cfi_adjust_cfa_offset -12
	xorl	%eax, %eax
	popl	%ecx
	.cfi_adjust_cfa_offset -4
	.cfi_register %eip, %ecx
	notrack jmp *%ecx
#endif
	function_end

#elif defined(__aarch64__)

	function
	hint	#34		/* bti c */
	mov	w0, wzr
.Lbegin:
	stp	x29, x30, [sp, #-16]!
	.cfi_adjust_cfa_offset 16
	.cfi_rel_offset x29, 0
	.cfi_rel_offset x30, 8
	bl	__forkgate_vfork_begin
	ldp	x29, x30, [sp], #16
	.cfi_adjust_cfa_offset -16
	.cfi_restore x29
	.cfi_restore x30
	tbnz	w0, #31, .Lreturn

	/* From here on the return address is in x30 alone. */
	mov	w9, w0
	mov	x0, #0x4111	/* CLONE_VFORK | CLONE_VM | SIGCHLD */
	mov	x1, xzr		/* the caller's stack */
	mov	x2, xzr
	mov	x3, xzr
	mov	x4, xzr
	mov	x8, #SYS_clone
	svc	#0

	cbz	x0, .Lchild
	cmn	x0, #4095
	b.lo	.Lparent
	neg	w0, w0
	mov	w1, w9
	b	.Lbegin

.Lparent:
	stp	x29, x30, [sp, #-32]!
	.cfi_adjust_cfa_offset 32
	.cfi_rel_offset x29, 0
	.cfi_rel_offset x30, 8
	stp	w0, w9, [sp, #16]
	mov	w1, w9
	bl	__forkgate_vfork_end
	mov	w10, w0
	ldp	w0, w1, [sp, #16]
	ldp	x29, x30, [sp], #32
	.cfi_adjust_cfa_offset -32
	.cfi_restore x29
	.cfi_restore x30
	cbz	w10, .Lreturn
	mov	w0, w10
	b	.Lbegin
.Lreturn:
	ret

.Lchild:
	stp	x29, x30, [sp, #-16]!
	.cfi_adjust_cfa_offset 16
	.cfi_rel_offset x29, 0
	.cfi_rel_offset x30, 8
	mov	w0, w9
	bl	__forkgate_vfork_child
	ldp	x29, x30, [sp], #16
	.cfi_adjust_cfa_offset -16
	.cfi_restore x29
	.cfi_restore x30
	mov	w0, wzr
	ret
	function_end

#ifdef __ARM_FEATURE_BTI_DEFAULT
/* The note that this file is ready for BTI */
	.section .note.gnu.property, "a"
	.p2align 3
	.word	4, 16, 5
	.asciz	"GNU"
	.word	0xc0000000, 4, 1, 0
#endif

#endif

	.section .note.GNU-stack, "", @progbits
