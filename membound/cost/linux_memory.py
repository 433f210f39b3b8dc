"""What Linux itself takes of a host's memory, with pages of 4 KiB: a record for each page that there is, and tables for each that is mapped."""

from __future__ import annotations

# x86-64's smallest page, which memory of processes is mapped in unless they ask for more. An ARM host may run 64 KiB, and loses a sixteenth as much.
_PAGE = 4096
# sizeof(struct page): Linux Documentation/mm/vmemmap_dedup.rst. Taken at boot from all memory, and so missing in MemTotal. Read by us on a
# machine of 24 GiB (dmesg's "Memory:" line beside /proc/meminfo): 1.91 % missing, 1.56 % of it these records, the rest kernel code and tables.
_RECORD = 64
# A page table of 4096 B maps 512 pages (x86-64): 8 B each. Read by us: VmPTE grows by 2052 KiB for 1 GiB touched (/proc/self/status).
_ENTRY = 8


def offered(capacity: int) -> int:
    """What processes can have of `capacity` B of memory modules, B."""
    return capacity - capacity * _RECORD // _PAGE


def page_tables(nbytes: int) -> int:
    """Tables that map `nbytes` B into the processes that hold them, B."""
    return nbytes * _ENTRY // _PAGE
