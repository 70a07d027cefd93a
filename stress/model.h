/* model.h: the four sections as the schedule explorer sees them: two steps each, read and commit.
 *
 * In the first step a section reads the P number, looks whether the P is open, reads the word, and moves pointers where
 * nobody looks before the commit; the second step is the store of the word. Between them other CPUs run on. A section on
 * the same P, or the barrier of a stop, sends it back to its start; a plain store from elsewhere does not.
 * That these do what the assembly in sections.h does is tested state by state (tests/test_model.py).
 */
#ifndef DEFERPOOL_MODEL_H
#define DEFERPOOL_MODEL_H

/* The first step. NULL: this thread has no P now. */
static inline dp_cache *dp_model_begin(dp_front *f, size_t at)
{
    uint32_t number = dp_model_enter(f);
    if (number < f->open) return (dp_cache *)(f->caches[number] + at);
    dp_model_leave();
    return NULL;
}

/* It ends without a commit. */
static inline int dp_model_unfit(void)
{
    dp_model_leave();
    return DP_UNFIT;
}

/* The second step. 0: sent back. */
static inline int dp_model_commit(dp_cache *cache, uint64_t word)
{
    if (dp_model_sent_back(&cache->word)) return 0;
    cache->word = word;
    dp_model_leave();
    return 1;
}

static inline int dp_model_pop(dp_front *f, size_t at, void **item)
{
    dp_cache *cache;
    uint64_t word;
    void *newest;
    do {
        if (!(cache = dp_model_begin(f, at))) return DP_NO_P;
        word = cache->word;
        newest = *dp_newest(cache);
        if (!newest) return dp_model_unfit();
    } while (!dp_model_commit(cache, word + DP_ONE_POP));
    *item = newest;
    return DP_DONE;
}

static inline int dp_model_push(dp_front *f, size_t at, void *item)
{
    dp_cache *cache;
    uint64_t word;
    do {
        if (!(cache = dp_model_begin(f, at))) return DP_NO_P;
        word = cache->word;
        if ((int16_t)word == -1) return dp_model_unfit();
        dp_newest(cache)[1] = item;
    } while (!dp_model_commit(cache, word + 1));
    return DP_DONE;
}

static inline int dp_model_popn(dp_front *f, size_t at, uint64_t n, void **items)
{
    dp_cache *cache;
    uint64_t word;
    do {
        if (!(cache = dp_model_begin(f, at))) return DP_NO_P;
        word = cache->word;
        if ((int16_t)word != -1) return dp_model_unfit();
        for (uint64_t i = 0; i < n; i++) items[i] = ((void **)cache)[(int64_t)i - (int64_t)n];
    } while (!dp_model_commit(cache, word - n));
    return DP_DONE;
}

static inline int dp_model_pushn(dp_front *f, size_t at, uint64_t n, void *const *items)
{
    dp_cache *cache;
    uint64_t word;
    do {
        if (!(cache = dp_model_begin(f, at))) return DP_NO_P;
        word = cache->word;
        if ((int64_t)(int16_t)word + (int64_t)n >= 0) return dp_model_unfit();
        for (uint64_t i = 0; i < n; i++) dp_newest(cache)[1 + i] = items[i];
    } while (!dp_model_commit(cache, word + n));
    return DP_DONE;
}

#endif
