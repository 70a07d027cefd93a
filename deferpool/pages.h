/* pages.h: whole pages of memory, from the operating system and back to it. */
#ifndef DEFERPOOL_PAGES_H
#define DEFERPOOL_PAGES_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#include <windows.h>
static inline void *dp_map(size_t size) { return VirtualAlloc(NULL, size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE); }
static inline void dp_unmap(void *memory, size_t size) { (void)size, VirtualFree(memory, 0, MEM_RELEASE); }
static inline void dp_forget(void *memory, size_t size)
{
    if (VirtualFree(memory, size, MEM_DECOMMIT)) VirtualAlloc(memory, size, MEM_COMMIT, PAGE_READWRITE);
}

/* What is reserved at once is released at once, so a place that is aligned is looked for, and then asked for by name. */
static inline void *dp_map_aligned(size_t size)
{
    int tries;
    for (tries = 0; tries < 16; tries++) {
        char *wide = (char *)VirtualAlloc(NULL, 2 * size, MEM_RESERVE, PAGE_NOACCESS), *memory;
        if (wide == NULL) return NULL;
        VirtualFree(wide, 0, MEM_RELEASE);
        memory = (char *)VirtualAlloc(wide + (size - (uintptr_t)wide % size) % size, size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
        if (memory != NULL) return memory; /* NULL: another thread was faster */
    }
    return NULL;
}
static inline void dp_small_pages(void *memory, size_t size) { (void)memory, (void)size; }
static inline size_t dp_page(void)
{
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return info.dwPageSize;
}
#else
#include <sys/mman.h>
#include <unistd.h>

#if !defined(MAP_NORESERVE)
#define MAP_NORESERVE 0
#endif
#if !defined(MAP_ANONYMOUS)
#define MAP_ANONYMOUS MAP_ANON
#endif

/* Zeroed; resident only from the first write to each page on. NULL when it cannot be had. */
static inline void *dp_map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* Gives the memory of the pages back and keeps their place; their content is lost. */
static inline void dp_forget(void *memory, size_t size)
{
#if defined(__linux__) || !defined(MADV_FREE)
    if (madvise(memory, size, MADV_DONTNEED)) madvise(memory, size, 24 /* MADV_DONTNEED_LOCKED, after mlockall */);
#else
    madvise(memory, size, MADV_FREE); /* elsewhere the other one is a hint about the near future only */
#endif
}

/* Gives back the place too. That may split a mapping in two, of which a process can have so many and no more. */
static inline void dp_unmap(void *memory, size_t size)
{
    if (munmap(memory, size)) dp_forget(memory, size);
}

/* The same, aligned to its size, a power of two. For a moment it takes twice that of the address space. */
static inline void *dp_map_aligned(size_t size)
{
    char *wide = (char *)dp_map(2 * size);
    size_t before = wide == NULL ? 0 : (size - (uintptr_t)wide % size) % size;
    if (wide == NULL) return NULL;
    if (before) dp_unmap(wide, before);
    dp_unmap(wide + before + size, size - before);
    return wide + before;
}

/* No page that is larger than a block: it would stay resident until the last of its blocks goes. */
static inline void dp_small_pages(void *memory, size_t size)
{
#if defined(MADV_NOHUGEPAGE)
    madvise(memory, size, MADV_NOHUGEPAGE);
#else
    (void)memory, (void)size;
#endif
}

static inline size_t dp_page(void) { return (size_t)sysconf(_SC_PAGESIZE); }
#endif

/* A pointer that other threads follow. */
static inline void *dp_seen(void *const *place)
{
#if defined(__GNUC__) || defined(__clang__)
    return __atomic_load_n(place, __ATOMIC_ACQUIRE);
#else
    return *(void *const volatile *)place;
#endif
}
static inline void dp_show(void **place, void *pointer)
{
#if defined(__GNUC__) || defined(__clang__)
    __atomic_store_n(place, pointer, __ATOMIC_RELEASE);
#else
    *(void *volatile *)place = pointer;
#endif
}

static inline unsigned dp_lowest_bit(uint64_t word) /* of a word that has one */
{
#if defined(__GNUC__) || defined(__clang__)
    return (unsigned)__builtin_ctzll(word);
#else
    unsigned i = 0;
    while (!(word >> i & 1)) i++;
    return i;
#endif
}

#endif
