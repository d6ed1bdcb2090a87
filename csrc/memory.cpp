#include "memory.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace sightline {
namespace {

constexpr std::size_t kHuge = std::size_t{2} << 20;
constexpr std::size_t kKept = std::size_t{64} << 20;  // bytes kept for later calls

struct Piece {
    char* data;
    std::size_t size;
};

// Pieces handed back. A fresh piece costs a page fault for every 4 KiB, which short calls would feel.
struct Shelf {
    std::mutex mutex;
    std::vector<Piece> pieces;
    std::size_t total = 0;

    char* take(std::size_t& size) {
        std::lock_guard lock(mutex);
        std::size_t best = pieces.size();  // the smallest that fits, and of those the last put back: it may be in cache
        for (std::size_t at = 0; at < pieces.size(); ++at) {
            bool fits = pieces[at].size >= size && pieces[at].size <= 2 * size;
            if (fits && (best == pieces.size() || pieces[at].size <= pieces[best].size)) best = at;
        }
        if (best == pieces.size()) return nullptr;
        Piece piece = pieces[best];
        pieces.erase(pieces.begin() + static_cast<long>(best));
        total -= piece.size;
        size = piece.size;
        return piece.data;
    }

    bool put(Piece piece) {
        std::lock_guard lock(mutex);
        if (piece.size > kKept) return false;
        while (!pieces.empty() && total + piece.size > kKept) {
            total -= pieces.front().size;
            std::free(pieces.front().data);
            pieces.erase(pieces.begin());
        }
        pieces.push_back(piece);
        total += piece.size;
        return true;
    }
};

Shelf& shelf() {
    static Shelf* one = new Shelf;  // never destroyed: threads may hand pieces back at exit
    return *one;
}

}  // namespace

Memory::Memory(std::size_t bytes) {
    if (bytes == 0) return;
    bool huge = bytes >= kHuge / 2;
    std::size_t unit = huge ? kHuge : 4096;
    size_ = (bytes + unit - 1) / unit * unit;
    data_ = shelf().take(size_);
    if (data_) return;
    data_ = static_cast<char*>(std::aligned_alloc(unit, size_));
    if (!data_) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (huge) madvise(data_, size_, MADV_HUGEPAGE);
#endif
}

Memory::~Memory() {
    if (data_ && !shelf().put({data_, size_})) std::free(data_);
}

}  // namespace sightline
