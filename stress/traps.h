/* traps.h: the four sections of sections.h with a trap before each instruction. For stress/_traps.pyx only.
 *
 * A trap interrupts the thread at exactly this point, as a signal or a preemption would: by an int3, which the kernel
 * turns into SIGTRAP. It is set by data, not by patching code: each counts down, and the one that comes to 0 fires,
 * once. So the second turn of a loop can be chosen too, although an interruption sends the section back to its start.
 * It leaves the flags and every register but rcx alone, and no instruction is given rcx here: so it may stand between a
 * comparison and its jump, and the section may be sent back from the middle of a trap. The instructions are the same
 * text as in any other build; tests/test_sections.py sees to it that each has its trap.
 */
#ifndef DEFERPOOL_TRAPS_H
#define DEFERPOOL_TRAPS_H

/* One trap, as the assembly below lays it out. */
typedef struct dp_trap {
    int64_t left;        /* one less each time the thread passes; 0 unless it was set, and so it never comes to 0 */
    const char *section; /* its name */
    const char *text;    /* of the instruction, with the registers that it got; "" behind the commit */
    uint64_t place;      /* DP_PLACE_... */
} dp_trap;

#define DP_PLACE_BEFORE 0 /* in front of the section's start: an interruption sends nothing back */
#define DP_PLACE_INSIDE 1
#define DP_PLACE_AFTER 2  /* the commit is done: it must stay done */

/* The linker names the ends of the table, whose order is that of the text. */
extern dp_trap __start_dp_traps[] __attribute__((visibility("hidden")));
extern dp_trap __stop_dp_traps[] __attribute__((visibility("hidden")));

#define DP_TRAP(place, text)               \
    ".pushsection .rodata\n"               \
    "9:\t.asciz \"" text "\"\n\t"          \
    ".popsection\n\t"                      \
    ".pushsection dp_traps, \"aw\"\n\t"    \
    ".balign 8\n"                          \
    "6:\t.quad 0, 10b, 9b, " #place "\n\t" \
    ".popsection\n\t"                      \
    "movq 6b(%%rip), %%rcx\n\t"            \
    "leaq -1(%%rcx), %%rcx\n\t"            \
    "movq %%rcx, 6b(%%rip)\n\t"            \
    "jrcxz 7f\n\t"                         \
    "jmp 8f\n"                             \
    "7:\tint3\n"                           \
    "8:\t"

#define DP_SECTION(name) ".pushsection .rodata\n10:\t.asciz \"" #name "\"\n\t.popsection\n\t"
#define DP_BEFORE(text) DP_TRAP(0, text) text "\n\t"
#define DP_I(text) DP_TRAP(1, text) text "\n\t"
#define DP_AFTER DP_TRAP(2, "")
#define DP_CLOBBERS "memory", "cc", "rcx"

#endif
