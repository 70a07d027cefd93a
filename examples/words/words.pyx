"""Counts the words of a text without the GIL. Each new word is a node in a hash table, and each node a record of a pool."""
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from deferpool.records cimport RecordPool

cdef enum: BUCKETS = 1024

cdef struct Node:
    Node* next
    const unsigned char* word           # it lies in the text
    uint64_t length, count


cdef inline Node* new_node(RecordPool pool, bint pooled) noexcept nogil:
    return <Node*>(pool.new(sizeof(Node)) if pooled else calloc(1, sizeof(Node)))


cdef inline void free_node(RecordPool pool, Node* node, bint pooled) noexcept nogil:
    if pooled:
        pool.free(node)
    else:
        free(node)


cdef Node* find(RecordPool pool, Node** table, const unsigned char* word, uint64_t length, uint64_t hash,
                bint pooled) noexcept nogil:
    """The node of this word, new if need be; NULL when there is no memory."""
    cdef Node** place = &table[hash % BUCKETS]
    cdef Node* node = place[0]
    while node != NULL:
        if node.length == length and memcmp(node.word, word, length) == 0:
            return node
        node = node.next
    node = new_node(pool, pooled)
    if node != NULL:                    # a record is zeroed: count is 0
        node.word, node.length, node.next = word, length, place[0]
        place[0] = node
    return node


cdef bint count_words(RecordPool pool, Node** table, const unsigned char* text, size_t size, bint pooled) noexcept nogil:
    """False when there is no memory."""
    cdef size_t at = 0, begin
    cdef uint64_t hash
    cdef Node* node
    while at < size:
        begin, hash = at, 14695981039346656037ULL
        while at < size and text[at] > 32:
            hash = (hash ^ text[at]) * 1099511628211ULL
            at += 1
        if at > begin:
            node = find(pool, table, text + begin, at - begin, hash ^ hash >> 32, pooled)
            if node == NULL:
                return False
            node.count += 1
        at += 1
    return True


cdef void free_all(RecordPool pool, Node** table, bint pooled) noexcept nogil:
    cdef Node* node
    cdef Node* following
    cdef int i
    for i in range(BUCKETS):
        node = table[i]
        while node != NULL:
            following = node.next
            free_node(pool, node, pooled)
            node = following


def count(RecordPool pool not None, const unsigned char[::1] text not None, *, bint pooled=True, int times=1):
    """How often each word occurs. The same is counted `times` times, so that it can be timed."""
    cdef Node* table[BUCKETS]
    cdef Node* node
    cdef bint enough = True
    cdef size_t size = <size_t>text.shape[0]
    cdef int i
    if size == 0:
        return {}
    counts = {}
    while times > 0:
        times -= 1
        with nogil:
            for i in range(BUCKETS):
                table[i] = NULL
            enough = count_words(pool, table, &text[0], size, pooled)
            if times or not enough:
                free_all(pool, table, pooled)
        if not enough:
            raise MemoryError("no memory for a word")
    try:
        for i in range(BUCKETS):
            node = table[i]
            while node != NULL:
                counts[bytes(node.word[:node.length])] = node.count
                node = node.next
    finally:
        free_all(pool, table, pooled)
    return counts
