// Thirds, two groups of rows after two others: while matrix registers multiply the next two's keys, and the last two's
// weights and values, the rest of the processor takes exponentials.
#pragma once

#include <optional>

#include "products.hpp"

namespace sightline {
namespace {

// Two groups of rows and a tile of keys. Exponents and thirds stay in the rows' places until their next tile.
struct Stage {
    Scratch at;  // with this tile's spans
    int group, j0, width, before;
    float* tile;     // logits
    float* weights;  // floats of a whole tile, if kept
    bool ends;       // no other rows meet that tile
};

template <bool kSlope, bool kKept>
class Pipeline {
  public:
    Pipeline(const Block& b, const Folds& folds, float scale, float unit)
        : b_(b), folds_(folds), scale_(scale), unit_(unit), moment_(first_moment(*b.request)) {
        if (moment_ && form(*b.request, *moment_) != Form::thirds) moment_ = nullptr;
    }

    // The next stage's logits, this one's exponentials, the last one's products with values.
    INLINE void push(const Stage& next) {
        Nothing nothing;
        if (now_) advance(&next);
        else multiply_key_thirds(b_, next.at, keys_at(b_, next.j0), next.group, next.tile, nothing);
        fold(next);
        now_ = next;
    }

    INLINE void drain() {
        Nothing nothing;
        if (now_) advance(nullptr);
        if (last_) gather(*last_, nothing);
    }

  private:
    INLINE void advance(const Stage* next) {
        Nothing nothing;
        const Powers powers{b_, now_->at, unit_, now_->weights, now_->tile, now_->group * kGroupRows};
        BesideThirds<kSlope, kKept> work(powers, now_->group, (next ? key_steps(*next) : 0) + value_steps());
        if (next) multiply_key_thirds(b_, next->at, keys_at(b_, next->j0), next->group, next->tile, work);
        if (last_) gather(*last_, work);
        work.finish();
        if (now_->ends) end_tile();
        last_ = now_;
        if (groups_of(b_) > kThirdGroups) return;
        // No other rows come between: its shifts are about to be lost.
        gather(*last_, nothing);
        last_.reset();
    }

    INLINE long key_steps(const Stage& s) const {
        const Span span = s.at.span[s.group];
        return third_steps(depth(*b_.request), span.to - span.from);
    }
    INLINE long value_steps() const {
        if (!last_ || !moment_) return 0;
        const Span span = last_->at.span[last_->group];
        return third_steps((span.to - span.from) / 2, up(moment_->count, kPanel));
    }

    template <class Work>
    INLINE void gather(const Stage& s, Work& work) const {
        if (!moment_) return;
        const Values values = values_of(b_, s.at, *moment_, 0, s.j0, s.width);
        add_packed(b_, s.at, *moment_, values, s.group, s.weights, b_.state.moments, s.before ? s.at.shift : nullptr,
                   work);
    }

    INLINE void fold(const Stage& s) const {
        constexpr int kSome = kThirdGroups * kGroupRows;
        const int first = s.group * kGroupRows, end = first + kSome < b_.rows ? first + kSome : b_.rows;
        fold_resting(b_, folds_, s.at, {first, end, s.j0, s.width, s.before, s.tile}, scale_, unit_);
    }

    INLINE void end_tile() const {
        moments(b_, now_->at, now_->j0, now_->width, now_->weights, !now_->before, moment_ != nullptr);
        if (b_.strip) end_strip(b_, now_->at, now_->j0, now_->width, now_->weights);
    }

    const Block& b_;
    const Folds& folds_;
    const float scale_, unit_;
    const Observation* moment_;        // whose values are gathered beside exponentials: the first
    std::optional<Stage> now_, last_;  // last: whose values are not gathered yet
};

template <bool kSlope, bool kKept>
__attribute__((noinline)) void settle_thirds(const Block& b, Scratch& at, const Folds& folds, float scale, float unit) {
    Pipeline<kSlope, kKept> pipeline(b, folds, scale, unit);
    bool odd = false;
    for_tiles(b, [&](int j0, int width, int before) {
        find_spans(b, at.bounds, j0, width, at.span);
        join_spans(b, at.span);
        for (int group = 0; group < groups_of(b); group += kThirdGroups, odd = !odd)
            pipeline.push({at, group, j0, width, before, at.tile + odd * kThirdGroups * kGroupRows * kTile,
                           strip_at(b, at, j0), group + kThirdGroups >= groups_of(b)});
    });
    pipeline.drain();
}

}  // namespace
}  // namespace sightline
