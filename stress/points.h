/* points.h: what the engine, built for the schedule explorer, tells the controller (stress/_fibers.pyx), and asks it.
 *
 * Included by platform.h in that build only. Every atomic step is announced before it is taken, so the controller can
 * let other threads run first. It also says what only the kernel knows: on which P a thread is, and whether a section
 * is sent back to its start.
 */
#ifndef DEFERPOOL_POINTS_H
#define DEFERPOOL_POINTS_H

#include <stdint.h>

enum { DP_LOAD, DP_STORE, DP_CAS, DP_ADD, DP_READ, DP_COMMIT, DP_BARRIER, DP_COPY };

void dp_step(int what, const void *address);

/* Not to be run again before somebody has changed what this thread looked at last. */
void dp_model_wait(void);

/* A section begins (one step): the P number it reads. Other threads' sections on that P are sent back. */
uint32_t dp_model_enter(const void *front);

/* It is about to commit (one step). Not 0: it was sent back to its start instead. */
int dp_model_sent_back(const void *word);

/* It has committed, or found that there is nothing to commit. */
void dp_model_leave(void);

/* The barrier: every open section is sent back. 0 or an error number. */
int dp_model_barrier(void);

/* The P number of the thread that runs, and its note of the P it had last. */
uint32_t dp_model_number(void);
uint32_t *dp_model_last_p(void);

#endif
