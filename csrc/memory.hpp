// Working memory: aligned, on huge pages where it is large, kept for the next call up to a small total.
#pragma once

#include <cstddef>
#include <utility>

namespace sightline {

class Memory {
  public:
    Memory() = default;
    explicit Memory(std::size_t bytes);
    ~Memory();
    Memory(Memory&& other) noexcept { swap(other); }
    Memory& operator=(Memory&& other) noexcept {
        swap(other);
        return *this;
    }
    char* data() const { return data_; }
    float* floats() const { return reinterpret_cast<float*>(data_); }
    std::size_t size() const { return size_; }

  private:
    void swap(Memory& other) {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
    }
    char* data_ = nullptr;
    std::size_t size_ = 0;
};

// Cuts one piece of memory into aligned parts. With no memory it only adds up sizes.
class Carver {
  public:
    __attribute__((always_inline)) explicit Carver(char* data) : data_(data) {}
    template <class T>
    __attribute__((always_inline)) T* take(std::size_t count) {
        std::size_t at = used_;
        used_ += (count * sizeof(T) + 63) / 64 * 64;
        return data_ ? reinterpret_cast<T*>(data_ + at) : nullptr;
    }
    __attribute__((always_inline)) std::size_t used() const { return used_; }

  private:
    char* data_;
    std::size_t used_ = 0;
};

}  // namespace sightline
