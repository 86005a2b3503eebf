"""The estimators again in plain Python: loops over rollouts and dictionaries, one token at a time."""

import math
import statistics
from collections import defaultdict
from functools import partialmethod

import oracle


class Slow:
    """Rollouts as lists; every method returns {(row, column): value}, the tokens left out being 0."""

    def __init__(self, r):
        self.rollouts = r
        self.rewards, self.advantages = r.rewards.tolist(), r.rollout_advantages.tolist()
        self.columns = [row.nonzero()[:, 0].tolist() for row in r.mask]
        self.ids = [r.token_ids[i, c].tolist() for i, c in enumerate(self.columns)]
        self.scored = [i for i, reward in enumerate(self.rewards) if not math.isnan(reward)]
        self.correct = {i: self.rewards[i] > r.correct_above for i in self.scored}
        self.groups = defaultdict(list)
        for i in self.scored:
            self.groups[int(r.group_ids[i])].append(i)

    def mixed(self):
        return [rows for rows in self.groups.values() if len({self.correct[i] for i in rows}) == 2]

    def each(self, rows):
        """Row, place inside the mask, column, id."""
        for i in rows:
            for place, (column, token) in enumerate(zip(self.columns[i], self.ids[i], strict=True)):
                yield i, place, column, token

    def key_tokens(self, **settings):
        r = self.rollouts
        arrays = (x.numpy() for x in (r.token_ids, r.mask, r.rewards, r.group_ids))
        values = oracle.key_token_values(*arrays, correct_above=r.correct_above, states=r.states, **settings)
        return {(i, t): values[i, t] for i, t in r.mask.nonzero().tolist()}

    ktae = key_tokens
    ktae_context = partialmethod(key_tokens, context=2, term_frequency_weight=0.0, scale=8.0)
    ktae_calculation = partialmethod(key_tokens, term_frequency_weight=0.0, scale=8.0)

    def counts(self, rows, context, before, token):
        """a, b, n_T, n_F: who went on with the token, and who reached the context (all, where it is empty)."""
        found = [0, 0, 0, 0]
        for i in rows:
            places = {(tuple(self.ids[i][max(0, p - context) : p]), x) for p, x in enumerate(self.ids[i])}
            side = 0 if self.correct[i] else 1
            found[side] += (before, token) in places
            found[2 + side] += context == 0 or any(b == before for b, _ in places)
        return found

    def back_off(self):
        values = {}
        for rows in self.mixed():
            for i, place, column, token in self.each(rows):
                q = v = sum(self.correct[j] for j in rows) / len(rows)
                for context in range(4):
                    before = tuple(self.ids[i][max(0, place - context) : place])
                    a, b, n_t, n_f = self.counts(rows, context, before, token)
                    if n_t + n_f >= 2:
                        q, v = (a + 2 * q) / (a + b + 2), (n_t + 2 * v) / (n_t + n_f + 2)
                values[i, column] = q - v
        return values

    def surprise(self):
        values = {}
        for rows in self.groups.values():
            for i, place, column, token in self.each(rows):
                a, b, n_t, n_f = self.counts(rows, 2, tuple(self.ids[i][max(0, place - 2) : place]), token)
                values[i, column] = -math.log((a + b) / (n_t + n_f)) * (1 if self.correct[i] else -1)
        return values

    def positive(self):
        return {(i, column): 1.0 for rows in self.mixed() for i, _, column, _ in self.each(rows) if self.correct[i]}

    def prefix_tree(self):
        values = {}
        for rows in self.groups.values():
            spread = statistics.stdev(self.rewards[i] for i in rows) if len(rows) > 1 else 0.0

            def value(prefix, rows=rows):
                return statistics.fmean(self.rewards[i] for i in rows if self.ids[i][: len(prefix)] == prefix)

            for i, place, column, _ in self.each(rows):
                gained = value(self.ids[i][: place + 1]) - value(self.ids[i][:place])
                values[i, column] = gained / (spread + 1e-6)
        return values

    def prefix_set(self):
        values = {}
        for rows in self.groups.values():
            for i, place, column, _ in self.each(rows):
                prefix = self.ids[i][: place + 1]
                size = sum(self.ids[j][: place + 1] == prefix for j in rows)
                values[i, column] = self.advantages[i] / size - self.advantages[i]
        return values

    def entropy_weighting(self):
        values = {}
        for rows in self.mixed():
            reward = {}
            for i, place, column, _ in self.each(rows):
                power = 1 if self.correct[i] else -1
                alive = [j for j in rows if self.correct[j] == self.correct[i] and len(self.ids[j]) > place]
                entropies = [float(self.rollouts.entropies[j, self.columns[j][place]]) for j in alive]
                weights = [max(h, 1e-6) ** power for h in entropies]
                share = weights[alive.index(i)] / sum(weights)
                reward[i, column] = power * (0.5 + 0.5 * len(alive) * share)
            if len(reward) > 1:
                mean, spread = statistics.fmean(reward.values()), statistics.stdev(reward.values())
                standard = {at: (x - mean) / (spread + 1e-6) for at, x in reward.items()}
            else:
                standard = dict.fromkeys(reward, 0.0)
            values |= {(i, column): x - self.advantages[i] for (i, column), x in standard.items()}
        return values

    def high_entropy(self):
        entropy = {(i, t): float(self.rollouts.entropies[i, t]) for i, _, t, _ in self.each(self.scored)}
        kept = sorted(entropy.values(), reverse=True)[: max(round(0.2 * len(entropy)), 1)]
        return {(i, t): -self.advantages[i] for (i, t), h in entropy.items() if h < kept[-1]}

    def conflict_tokens(self):
        values = {}
        for rows in self.groups.values():
            for i in rows:
                others = [self.ids[j] for j in rows if self.advantages[j] * self.advantages[i] < 0]
                ids, length = self.ids[i], len(self.ids[i])
                start = end = 0
                while start < length and any(x[start : start + 1] == [ids[start]] for x in others):
                    start += 1
                while end < length and any(len(x) > end and x[-1 - end] == ids[-1 - end] for x in others):
                    end += 1
                for place in {*range(start), *range(length - end, length)}:
                    values[i, self.columns[i][place]] = abs(self.advantages[i])
        return values

    def turn_groups(self):
        values = {}
        for rows in self.groups.values():
            turns = []  # row, state, columns
            for i in rows:
                previous = None
                for t in self.columns[i]:
                    state = int(self.rollouts.states[i, t])
                    if previous is None or t != previous[0] + 1 or state != previous[1]:
                        turns.append((i, state, []))
                    turns[-1][2].append(t)
                    previous = t, state
            returns = []
            for k, (i, _, _) in enumerate(turns):
                left = sum(j == i for j, _, _ in turns[k + 1 :])
                returns.append(self.rewards[i] * 0.95**left)
            for (i, state, columns), own in zip(turns, returns, strict=True):
                peers = [x for (_, s, _), x in zip(turns, returns, strict=True) if s == state]
                if len(peers) > 1:
                    value = (own - statistics.fmean(peers)) / (statistics.stdev(peers) + 1e-6)
                    values |= {(i, t): value for t in columns}
        return values
