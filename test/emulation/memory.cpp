/*
 * memory.cpp - see emulated_memory.h. Device memory is closed by the system's page tables but while something of its
 * device runs: whoever else touches it ends the program, which says whose memory it was.
 */
#include "emulated_memory.h"

#include <map>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE EMULATED_PAGE
#define NO_DEVICE (-2)
/* What no address is whose upper half is a number, and its lower half another. */
#define LOWEST_UPPER_HALF 0x5000
#define LOWEST_LOWER_HALF ((uint32_t) 1 << 24)

namespace
{

/* Pages of their own, so that they can be closed, between two that are never open. */
struct block
{
	int device;
	size_t bytes;
	char *pages;
	size_t page_bytes;
};

std::map<const char *, block> blocks;
std::map<const char *, size_t> pinned;
int open_device = NO_DEVICE; /* whose memory can be touched, or every device's, or none's */
struct sigaction program_handler;

bool
is_open(const block &b, int device)
{
	return device == EMULATED_EVERY_DEVICE || device == b.device;
}

void
set_access(const block &b, bool allowed)
{
	mprotect(b.pages, b.page_bytes, allowed ? PROT_READ | PROT_WRITE : PROT_NONE);
}

/* ---- what touches memory that is closed ---- */

/* The block that an address is in or beside; no lock, because nobody goes on after this. */
const std::pair<const char *const, block> *
block_around(const char *at)
{
	for (const auto &entry : blocks)
		if (at >= entry.second.pages - PAGE && at < entry.second.pages + entry.second.page_bytes + PAGE)
			return &entry;
	return nullptr;
}

void
tell(const char *at)
{
	const auto *entry = block_around(at);
	char who[32] = "the host";
	char line[160];
	int length;

	if (entry == nullptr)
		return;
	if (open_device != NO_DEVICE)
		snprintf(who, sizeof who, "device %d", open_device);
	length = snprintf(line, sizeof line, "emulated device: %s touches memory of device %d: byte %td of %zu\n", who,
					  entry->second.device, at - entry->first, entry->second.bytes);
	if (write(STDERR_FILENO, line, (size_t) length) < 0)
		return;
}

/* The program's own handler sees it then, when the same instruction is tried again. */
void
handle_fault(int signal, siginfo_t *info, void *)
{
	tell(static_cast<const char *>(info->si_addr));
	sigaction(signal, &program_handler, nullptr);
}

/* Tests have handlers that come and go: ours is to be before whichever is there. */
void
watch_faults(void)
{
	struct sigaction now;
	struct sigaction ours = {};

	sigaction(SIGSEGV, nullptr, &now);
	if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == handle_fault)
		return;
	program_handler = now;
	ours.sa_sigaction = handle_fault;
	ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigemptyset(&ours.sa_mask);
	sigaction(SIGSEGV, &ours, nullptr);
}

/* The entry that begins at p or last before it, or the end. */
template <typename T>
typename std::map<const char *, T>::const_iterator
entry_before(const std::map<const char *, T> &all, const void *p)
{
	const auto next = all.upper_bound(static_cast<const char *>(p));

	return next == all.begin() ? all.end() : std::prev(next);
}

bool
is_mapped(uintptr_t at)
{
	unsigned char resident;

	return mincore(reinterpret_cast<void *>(at / PAGE * PAGE), 1, &resident) == 0;
}

/* Of eight bytes that may be anything. */
bool
is_host_pointer(uint64_t word)
{
	const char *at = reinterpret_cast<const char *>(static_cast<uintptr_t>(word));
	const uint64_t upper = word >> 32;

	return upper >= LOWEST_UPPER_HALF && upper <= 0xffff && static_cast<uint32_t>(word) >= LOWEST_LOWER_HALF &&
		   block_around(at) == nullptr && !emulated_is_pinned(at, 0) && is_mapped(static_cast<uintptr_t>(word));
}

} // namespace

/* ---- opening and closing ---- */

void
emulated_open_memory(int device)
{
	if (open_device == device)
		return;
	for (const auto &entry : blocks)
		if (is_open(entry.second, open_device) != is_open(entry.second, device))
			set_access(entry.second, is_open(entry.second, device));
	open_device = device;
}

void
emulated_close_memory(void)
{
	if (open_device == NO_DEVICE)
		return;
	emulated_open_memory(NO_DEVICE);
	watch_faults();
}

/* ---- blocks ---- */

void *
emulated_map_block(int device, size_t bytes)
{
	const size_t rounded = (bytes + 255) / 256 * 256;
	const size_t inside = (rounded + PAGE - 1) / PAGE * PAGE;
	char *mapped =
		(char *) mmap(nullptr, inside + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	/* up against the closed page, which shows what goes beyond the end */
	char *data = mapped + PAGE + inside - rounded;
	const block b = {device, bytes, mapped + PAGE, inside};

	if (mapped == MAP_FAILED)
		return nullptr;
	madvise(mapped, inside + 2 * PAGE, MADV_HUGEPAGE); /* fewer pages to open and close */
	if (bytes <= EMULATED_LARGEST_TOUCHED)
	{
		set_access(b, true);
		memset(data, 0xff, bytes); /* NaN until it is written */
		set_access(b, false);
	}
	blocks[data] = b;
	watch_faults();
	return data;
}

bool
emulated_unmap_block(void *p, int *device, size_t *bytes)
{
	const auto entry = blocks.find(static_cast<char *>(p));

	if (entry == blocks.end())
		return false;
	*device = entry->second.device;
	*bytes = entry->second.bytes;
	munmap(entry->second.pages - PAGE, entry->second.page_bytes + 2 * PAGE);
	blocks.erase(entry);
	return true;
}

bool
emulated_is_device(const void *p, size_t bytes)
{
	const auto entry = entry_before(blocks, p);

	return entry != blocks.end() && static_cast<const char *>(p) + bytes <= entry->first + entry->second.bytes;
}

bool
emulated_has_device(const void *p, size_t bytes)
{
	const auto last = entry_before(blocks, static_cast<const char *>(p) + bytes - 1);

	return last != blocks.end() && static_cast<const char *>(p) < last->first + last->second.bytes;
}

/* ---- pinned memory ---- */

void
emulated_pin(const void *p, size_t bytes)
{
	pinned[static_cast<const char *>(p)] = bytes;
}

void
emulated_unpin(const void *p)
{
	pinned.erase(static_cast<const char *>(p));
}

size_t
emulated_pinned_bytes(void)
{
	size_t bytes = 0;

	for (const auto &entry : pinned)
		bytes += entry.second;
	return bytes;
}

bool
emulated_is_pinned(const void *p, size_t bytes)
{
	const auto entry = entry_before(pinned, p);

	return entry != pinned.end() && static_cast<const char *>(p) + bytes <= entry->first + entry->second;
}

/* ---- arguments of kernels ---- */

bool
emulated_has_host_pointer(const void *argument, size_t bytes)
{
	uint64_t word;

	for (size_t at = 0; at + sizeof word <= bytes; at += sizeof word)
	{
		memcpy(&word, static_cast<const char *>(argument) + at, sizeof word);
		if (is_host_pointer(word))
			return true;
	}
	return false;
}
