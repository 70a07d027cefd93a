"""Sched: the Ps, their number, their mode, and the registry of pools.

Nothing here knows what a pool holds. A stop is the one way to touch a P from outside, and its order is the
whole point: take `holder`, close the sections, let the barrier send open sections back to their start; only then does
the P belong to the stopper. `holder` is given back last.

While the registry is locked no memory is allocated, no Python code runs and the GIL is neither taken nor left.
"""
import os
import sysconfig
import weakref
from itertools import count
from operator import index

from libc.errno cimport ENOMEM
from libc.stdint cimport intptr_t, uint32_t

from deferpool._cpython cimport PyTypeObject, name_arguments, shown
from deferpool._platform cimport (
    add64, cas32, line_alloc, line_free, load32, load64, lock, plain_alloc, plain_release, store32, unlock, wait,
)
from deferpool._sections cimport FREE, HELD, MAX_PROCS, RETIRED, P, SchedState

from deferpool._environment import flag

cdef extern from "kernel.h" nogil:
    void find_no_area "dp_find_no_area"(intptr_t*, intptr_t*) noexcept
    bint find_sections "dp_find_sections"(intptr_t*, intptr_t*, bint*) noexcept
    int barrier "dp_barrier"() noexcept
    int barrier_register "dp_barrier_register"() noexcept
    int atfork "dp_atfork"(void (*)() noexcept nogil, void (*)() noexcept nogil, void (*)() noexcept nogil) noexcept


# ---- what the kernel offers, asked once ---------------------------------------------------------------

cdef intptr_t AREA = 0, NUMBER = 0
cdef bint COMPACT = False               # P numbers are mm_cid: below the CPUs this process may use

find_no_area(&AREA, &NUMBER)
cdef bint SECTIONS = not flag("DEFERPOOL_PORTABLE") and find_sections(&AREA, &NUMBER, &COMPACT)

def _usable_cpus():
    try:
        # the process's and not only this thread's, which may be pinned: the main thread's speaks for it
        return len(os.sched_getaffinity(0) | os.sched_getaffinity(os.getpid()))
    except AttributeError:
        return os.cpu_count() or 1

def _highest_cpus():
    """How many CPU numbers there can be: what P numbers are below where the kernel has no mm_cid."""
    return max(os.sysconf("SC_NPROCESSORS_CONF"), _usable_cpus())


# ---- stop and start -----------------------------------------------------------------------------------

cdef bint fence_all() noexcept nogil:
    return barrier() == 0


cdef void take_holder(P* p) noexcept nogil:
    cdef uint32_t turns = 0
    while not cas32(&p.holder, FREE, HELD):
        wait(&turns)


cdef void open_sections(Registry* registry, uint32_t procs) noexcept nogil:
    cdef Member* member = registry.members
    while member != NULL:
        store32(&member.front.open, procs)
        member = member.next


cdef P* acquirep_elsewhere(SchedState* state, uint32_t* last, uint32_t* number) noexcept nogil:
    cdef uint32_t procs = load32(&state.procs), tries, i
    cdef P* p
    if last[0] == 0:
        last[0] = 1 + <uint32_t>add64(&state.hints, 1)
    i = (last[0] - 1) % procs
    for tries in range(min(procs, 4u)):
        p = &state.ps[i]
        if load32(&p.holder) == FREE and cas32(&p.holder, FREE, HELD):
            if load32(&state.portable):
                last[0] = i + 1
                number[0] = i
                return p
            store32(&p.holder, FREE)             # sections have it again: the mode has changed
            return NULL
        i = i + 1 if i + 1 < procs else 0
    return NULL


cdef int stop(Registry* registry, uint32_t first, uint32_t last) noexcept nogil:
    cdef uint32_t i
    cdef int error
    for i in range(first, last):
        take_holder(&registry.state.ps[i])
    if registry.state.portable:
        return 0                        # no section is open, and the holder owns the P
    open_sections(registry, 0)
    error = barrier()
    if error:
        start(registry, first, last)
    return error


cdef void start(Registry* registry, uint32_t first, uint32_t last) noexcept nogil:
    cdef uint32_t i
    if not registry.state.portable:
        open_sections(registry, registry.state.procs)
    for i in range(first, last):
        store32(&registry.state.ps[i].holder, FREE)


cdef int stop_for(Registry* registry, Member* member, uint32_t p) noexcept nogil:
    """Stops a P as far as one pool is concerned: sections on all other pools' local caches go on."""
    cdef int error = 0
    take_holder(&registry.state.ps[p])
    if not registry.state.portable:
        store32(&member.front.open, 0)  # of all Ps: this is short and rare, a look at each P's own word is neither
        error = barrier()
        if error:
            start_for(registry, member, p)
    return error


cdef void start_for(Registry* registry, Member* member, uint32_t p) noexcept nogil:
    if not registry.state.portable:
        store32(&member.front.open, registry.state.procs)
    store32(&registry.state.ps[p].holder, FREE)


# ---- the registry -------------------------------------------------------------------------------------

cdef bint link(Registry* registry, Member* member) noexcept nogil:
    lock(&registry.lock)
    cdef bint ready = member.equipped >= registry.state.procs
    if ready:
        member.next = registry.members
        if member.next != NULL:
            member.next.link = &member.next
        member.link = &registry.members
        registry.members = member
        store32(&member.front.open, 0 if registry.state.portable else registry.state.procs)
    unlock(&registry.lock)
    return ready


cdef void unlink(Registry* registry, Member* member) noexcept nogil:
    cdef uint32_t turns = 0
    lock(&registry.lock)
    member.link[0] = member.next
    if member.next != NULL:
        member.next.link = member.link
    while member.pins:
        unlock(&registry.lock)
        wait(&turns)
        lock(&registry.lock)
    unlock(&registry.lock)


cdef bint equip_all(Registry* registry, uint32_t n) noexcept nogil:
    """Under the registry lock, which it gives up meanwhile: gives each pool its caches on n Ps. False: no memory."""
    cdef Member* member = registry.members
    cdef bint done = True
    while done and member != NULL:
        if member.equipped >= n:
            member = member.next
            continue
        member.pins += 1
        unlock(&registry.lock)
        done = member.equip(member, n)
        lock(&registry.lock)
        member.pins -= 1
        member = registry.members       # the list may have changed
    return done


cdef int resize(Registry* registry, uint32_t n, uint32_t* before) noexcept nogil:
    """Makes Ps 0 to n-1 the ones in use, in the mode that n asks for. 0, or an error number and no change."""
    cdef uint32_t i, old
    cdef int error = ENOMEM
    cdef bint sections = registry.sections and n >= registry.cpus
    lock(&registry.lock)
    if equip_all(registry, n):
        old = registry.state.procs
        before[0] = old
        error = stop(registry, 0, old)
    if not error:
        store32(&registry.state.portable, not sections)
        store32(&registry.state.procs, n)
        open_sections(registry, n if sections else 0)
        for i in range(max(old, n)):
            store32(&registry.state.ps[i].holder, FREE if i < n else RETIRED)
        registry.draining += 1
        store32(&registry.counted, max(registry.counted, n))
    unlock(&registry.lock)
    return error


cdef void settle(Registry* registry, bint drained) noexcept nogil:
    """A procresize has drained what it removed. The bound shrinks only now, and not at all in a child forked before."""
    lock(&registry.lock)
    registry.draining -= registry.draining > 0      # 0 already: in a child that was forked from within a drain
    if registry.draining == 0 and drained:
        store32(&registry.counted, registry.state.procs)
    unlock(&registry.lock)


# ---- fork: the child gets every P, cache and central pool in a state that somebody left on purpose -----

cdef Registry* registries = NULL
cdef uint32_t registries_lock = 0

cdef void before_fork() noexcept nogil:
    cdef Registry* registry
    cdef Member* member
    cdef uint32_t i
    lock(&registries_lock)
    registry = registries
    while registry != NULL:
        lock(&registry.lock)
        for i in range(registry.state.procs):
            take_holder(&registry.state.ps[i])
        open_sections(registry, 0)
        registry = registry.next
    barrier()                           # one for all; a fork cannot be refused, so neither can this
    registry = registries
    while registry != NULL:
        member = registry.members
        while member != NULL:
            member.hold(member)
            member = member.next
        registry = registry.next


cdef void after_fork() noexcept nogil:
    cdef Registry* registry
    cdef Member* member
    registry = registries
    while registry != NULL:
        member = registry.members
        while member != NULL:
            member.unhold(member)
            member = member.next
        start(registry, 0, registry.state.procs)
        unlock(&registry.lock)
        registry = registry.next
    unlock(&registries_lock)


cdef void after_fork_in_child() noexcept nogil:
    cdef Registry* registry = registries
    cdef Member* member
    barrier_register()
    while registry != NULL:
        registry.draining = 0           # of threads that this process does not have, as are the pins
        member = registry.members
        while member != NULL:
            member.pins = 0
            member.orphan(member)
            member = member.next
        registry = registry.next
    after_fork()


if atfork(before_fork, after_fork, after_fork_in_child):
    raise MemoryError("no memory for the fork hooks")


# ---- weak registers: Python's side of the lists above ---------------------------------------------------

_serial = count()
_scheds = {}

cdef object remember(dict register, thing):
    """Adds a weak reference that removes itself, and returns it. Safe while other threads add, look and drop."""
    serial = next(_serial)
    reference = register[serial] = weakref.ref(thing, lambda _: register.pop(serial, None))
    return reference

cdef list remembered(dict register):
    # no comprehension: Cython's drops an item twice when there is no memory to append it
    cdef list alive = []
    for reference in list(register.values()):
        thing = reference()
        if thing is not None:
            alive.append(thing)
    return alive


# ---- the Python face ----------------------------------------------------------------------------------

def _checked_procs(n):
    n = index(n)
    if not 1 <= n <= MAX_PROCS:
        raise ValueError(f"procs must be from 1 to {MAX_PROCS}, not {shown(n)}")
    return n


cdef class Sched:
    """The Ps that pools share, and the registry of those pools.

    Most programs never make one: every pool uses the runtime's own unless told otherwise. One of your own has
    Ps of its own, which serves tests that want two Ps on a large machine.

    Parameters:
        procs: number of Ps, 1 to 1,024. Default: the CPUs this process may use in sections mode; four times
            that, and at least 16, in portable mode.
        portable: True forces portable mode. Default: sections where the machine has them and `procs` is at
            least the number of CPUs.
        clear_on_gc: whether a full garbage collection clears the central pools, as in Go. Default True.

    Raises ValueError for a number of Ps out of range, TypeError for one that is not an integer, MemoryError.
    Thread-safe.
    """

    def __cinit__(self, procs=None, *, bint portable=False, bint clear_on_gc=True):
        global registries
        cdef Registry* registry
        cdef uint32_t i, n, none
        cdef bint sections = SECTIONS and not portable
        cpus = _usable_cpus() if COMPACT or not SECTIONS else _highest_cpus()
        n = _checked_procs(procs) if procs is not None else min(cpus if sections else max(4 * cpus, 16), MAX_PROCS)
        registry = <Registry*>line_alloc(plain_alloc, NULL, sizeof(Registry))
        if registry == NULL:
            raise MemoryError("no memory for a Sched")
        registry.state.ps = <P*>line_alloc(plain_alloc, NULL, MAX_PROCS * sizeof(P))
        if registry.state.ps == NULL:
            line_free(plain_release, NULL, registry)
            raise MemoryError("no memory for the Ps")
        for i in range(MAX_PROCS):
            registry.state.ps[i].holder = RETIRED
        registry.state.area = AREA
        registry.state.number = NUMBER
        registry.state.portable = True
        registry.cpus = min(cpus, MAX_PROCS)
        registry.sections = sections
        resize(registry, n, &none)
        settle(registry, True)          # nothing runs on it yet: it stops no P and cannot fail
        with nogil:
            lock(&registries_lock)
            registry.next = registries
            registries = registry
            unlock(&registries_lock)
        self.registry = registry
        self.pools = {}
        self.clear_on_gc = clear_on_gc
        remember(_scheds, self)

    def __dealloc__(self):
        cdef Registry** at = &registries
        if self.registry == NULL:
            return
        with nogil:                     # its pools hold references to it, so it has none left
            lock(&registries_lock)
            while at[0] != self.registry:
                at = &at[0].next
            at[0] = self.registry.next
            unlock(&registries_lock)
        line_free(plain_release, NULL, self.registry.state.ps)
        line_free(plain_release, NULL, self.registry)

    cdef uint32_t counted(self) noexcept:
        return load32(&self.registry.counted)

    cdef list live_pools(self):
        return remembered(self.pools)

    @property
    def procs(self):
        """The number of Ps in use now."""
        return load32(&self.registry.state.procs)

    @property
    def cpus(self):
        """Fewer Ps than this are run in portable mode."""
        return self.registry.cpus

    @property
    def mode(self):
        """'sections' (restartable, Linux's rseq) or 'portable' (compare-and-swap)."""
        return "portable" if load32(&self.registry.state.portable) else "sections"

    def procresize(self, n):
        """Changes the number of Ps to n while threads work, and returns the number before.

        What removed Ps held goes to the central pools, and past a pool's limit to its allocator, before this
        returns; until then the larger bound holds. Fewer Ps than CPUs means portable mode, and back.

        Raises ValueError or TypeError for a bad number, MemoryError, and OSError when the kernel refuses the
        barrier; nothing has changed then. Thread-safe.
        """
        cdef uint32_t wanted = _checked_procs(n), old = 0
        cdef int error
        cdef Registry* registry = self.registry
        cdef bint drained = True
        pools = self.live_pools()       # whoever has no memory for this list changes nothing
        with nogil:
            error = resize(registry, wanted, &old)
        if error == ENOMEM:
            raise MemoryError(f"no memory for the local caches of {wanted} Ps")
        if error:
            raise OSError(error, f"membarrier refused, procs still {self.procs}: {os.strerror(error)}")
        try:
            pools = self.live_pools()   # some were made meanwhile
        except MemoryError:
            drained = False             # those keep what they have on removed Ps, and the bound does not shrink yet
        for pool in pools:
            pool._drain_retired()
        with nogil:
            settle(registry, drained)
        return old

    def clearpools(self):
        """Gives every item of the central pools back to its allocator; local caches stay. Thread-safe."""
        for pool in self.live_pools():
            pool._clear_central()

    def stats(self):
        """What this Sched is doing: a dict, never blocking and so no snapshot.

        Keys: `mode`, `procs`, `cpus`, `restarts` (sections that the kernel sent back to their start), `pools`
        (each pool's own stats), and over all pools `cached`, `live`, `created`, `destroyed`, `bound` (None as
        soon as one pool has no limit). Thread-safe.
        """
        total = {"mode": self.mode, "procs": self.procs, "cpus": self.cpus,
                 "restarts": load64(&self.registry.state.restarts),
                 "cached": 0, "live": 0, "created": 0, "destroyed": 0, "bound": 0}
        pools = []
        for pool in self.live_pools():
            figures = pool.stats()
            pools.append(figures)
            for key in ("cached", "live", "created", "destroyed"):
                total[key] += figures[key]
            unbounded = total["bound"] is None or figures["bound"] is None
            total["bound"] = None if unbounded else total["bound"] + figures["bound"]
        total["pools"] = pools
        return total

    def __repr__(self):
        return f"<deferpool.Sched: {self.procs} Ps, {self.mode}>"


# ---- the runtime's own --------------------------------------------------------------------------------

def _procs_from_environment():
    text = os.environ.get("DEFERPOOL_PROCS", "").strip()
    if not text:
        return None
    try:
        return _checked_procs(int(text))
    except ValueError:
        raise ValueError(f"DEFERPOOL_PROCS must be an integer from 1 to {MAX_PROCS}, not {text!r}") from None


name_arguments(<PyTypeObject*>Sched)

cdef Sched _default = Sched(_procs_from_environment())

cdef Sched default_sched():
    return _default

def default():
    """The Sched of the runtime: what every pool uses unless told otherwise."""
    return _default


# ---- collections ------------------------------------------------------------------------------------------

# A free-threaded build's automatic collections are all full, and report themselves as generation 0.
_EVERY_COLLECTION_IS_FULL = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

cdef bint collecting = False
cdef list put_off = []

def on_collection(phase, info):
    """For gc.callbacks: as a full collection starts, clears the central pools of each Sched that wants it; when one is over,
    calls what was put off. Compiled, so that no signal's handler runs in here: what that raises would be lost."""
    global collecting
    collecting = phase == "start"
    if not collecting:
        while put_off:
            put_off.pop()()
    elif _EVERY_COLLECTION_IS_FULL or info["generation"] == 2:
        for sched in remembered(_scheds):
            if sched.clear_on_gc:
                for pool in (<Sched>sched).live_pools():
                    pool._clear_for_gc()


def after_collection(call):
    """Calls this when the collection that runs now is over. False: none runs."""
    if collecting:
        put_off.append(call)
    return collecting
