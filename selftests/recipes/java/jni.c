// SPDX-License-Identifier: GPL-2.0-only
/*
 * Recipe of forkgate-languages(7): the library's calls for Java. Must not do
 * anything else.
 */
/* guide: begin */
#include <forkgate.h>
#include <jni.h>

JNIEXPORT jint JNICALL
Java_Forkgate_enter(JNIEnv *env, jclass class, jint domains)
{
	return forkgate_enter(domains);
}

JNIEXPORT void JNICALL
Java_Forkgate_leave(JNIEnv *env, jclass class, jint domains)
{
	forkgate_leave(domains);
}

JNIEXPORT jint JNICALL
Java_Forkgate_prepare(JNIEnv *env, jclass class, jint domains)
{
	return forkgate_prepare(domains, NULL);
}

JNIEXPORT jint JNICALL
Java_Forkgate_release(JNIEnv *env, jclass class)
{
	return forkgate_release();
}

/* guide: end */
