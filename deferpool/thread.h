/* thread.h: variables of which each thread has its own. */
#ifndef DEFERPOOL_THREAD_H
#define DEFERPOOL_THREAD_H

#include <stdint.h> /* of any header of the libc's: whose it is */

#if defined(_MSC_VER)
#define DP_OF_THREAD __declspec(thread)
#elif defined(__GLIBC__)
/* At the same distance from the thread pointer in every thread, which some rely on; reached by one instruction, in room that
 * glibc keeps for such small variables of loaded modules. Otherwise the first look would be a call that takes memory from
 * the heap, where nobody could be told that there is none. */
#define DP_OF_THREAD __thread __attribute__((tls_model("initial-exec")))
#else
#define DP_OF_THREAD __thread
#endif

#endif
