"""The mixture, slow and obvious: docs/model.md in plain Python over decoded rows."""

import math

from helpers.fold_oracle import current_cell, earlier_cell, latest_first
from serving.scoring.parameters import DEFAULT as P
from state.rows import lane_rows as g
from state.rows.decay import value_at

SHORT, LONG = 86_400_000, 7 * 86_400_000


class Oracle:
    """Scores one session; items are hashes, `slot_of` gives an item's row."""

    def __init__(self, rows, slot_of, totals, now_ms):
        self.rows, self.slot_of, self.totals, self.now = rows, slot_of, totals, now_ms

    def mass(self, x):
        adj, far, bwd = self.rows["total"][self.slot_of[x]] / 100
        return adj + far + 0.8 * bwd

    def pairs(self, x):
        row = self.rows[self.slot_of[x]]
        return {int(row["neighbour"][j]): row["weight"][:, j] / 100 for j in range(int(row["n"]))}

    def popularity(self, x, h):
        s, half_life = self.slot_of[x], (SHORT, LONG)[h]
        return max(value_at(self.rows["pop_epoch"][s, h], *self.rows["pop"][s, h].tolist(), half_life, self.now), 0)

    def total_popularity(self, h):
        return max(value_at(*self.totals[g.POP + 3 * h : g.POP + 3 * h + 3].tolist(), (SHORT, LONG)[h], self.now), 1e-9)

    def ln_table(self, at, n_cells, size, prior, cell):
        table = self.totals[at : at + 2 * n_cells].reshape(n_cells, 2)
        overall = (table[:, 0].sum() + 0.5) / (table[:, 1].sum() + 5)
        part = table[cell // size * size : (cell // size + 1) * size]
        mean = (part[:, 0].sum() + prior * overall) / (part[:, 1].sum() + prior)
        return math.log((table[cell, 0] + 30 * mean) / (table[cell, 1] + 30))

    def ln_item(self, x, column, prior):
        q, n = self.rows["repeat"][self.slot_of[x], column : column + 2]
        usual = (self.totals[g.REPEAT + column] + 0.5) / (self.totals[g.REPEAT + column + 1] + 5)
        return math.log((q + prior * usual) / (n + prior) / usual)

    def score(self, session, repeat="allow"):
        seeds = latest_first(session)
        pair, base, hits, second = {}, {}, {}, {}
        for r, x in enumerate(seeds):
            bucket = r if r < 3 else 3 if r < 5 else 4 if r < 10 else 5
            for j, counts in self.pairs(x).items():
                share = counts / (self.mass(x) + 2)
                pair[j] = pair.get(j, 0) + float(P.pairs[bucket] @ share)
                base[j] = base.get(j, 0) + math.exp(-r / 2.5) * (share[0] + share[1] + 0.8 * share[2])
                hits[j] = hits.get(j, 0) + 1
        for r, x in enumerate(seeds[:3]):
            beyond = {}
            for k, counts in self.pairs(x).items():
                through = (counts[0] + counts[1] + 0.8 * counts[2]) / (self.mass(x) + 2)
                if through < 0.02:
                    continue
                for j, more in self.pairs(k).items():
                    if j != x:
                        onward = (more[0] + more[1] + 0.8 * more[2]) / (self.mass(k) + 2)
                        beyond[j] = beyond.get(j, 0) + through * onward
            for j, share in sorted(beyond.items(), key=lambda one: -one[1])[:64]:
                second.setdefault(j, [0, 0])[min(r, 1)] += math.exp(-r / 2.5) * share
        novel, odds = {}, {}
        ln_mass = math.log(self.mass(seeds[0]) + 1)
        for j in {*seeds, *pair, *second}:
            so = second.get(j, [0, 0])
            support = max(int(self.rows["support"][self.slot_of[j]]), 1)
            lift = max(self.totals[g.SESSIONS] / support, 1)
            b = (base.get(j, 0) + 0.3 * sum(so)) * (1 + 0.5 * math.log(lift))
            share7 = (self.popularity(j, 1) + 0.5) / self.total_popularity(1)
            sum1, p1 = self.total_popularity(0), self.popularity(j, 0)
            trend = math.log((p1 + 5 * share7) / (sum1 + 5) / share7)
            count = max(int(self.rows["count"][self.slot_of[j]]), 0) / max(int(self.totals[g.COUNT]), 1e-9)
            f = pair.get(j, 0) + float(P.second @ so) + P.popularity[0] * p1 / sum1 + P.popularity[1] * count
            ln_support, ln_base, h = math.log(support), math.log(b + 1e-4), hits.get(j, 0)
            phi = [ln_support, trend, h, 0, 0, 0, 0, ln_support * ln_mass / 10, 0, ln_base]
            bias = 0 if j not in seeds else P.session_bias[0 if j == seeds[0] else 1]
            novel[j] = (1e-5 + f) ** P.power * math.exp(sum(P.theta * phi) + bias)
            if j in seeds and repeat in ("exclude", "new_first"):
                novel[j] = 0
            if j in seeds and repeat == "allow":
                r = seeds.index(j)
                if r == 0:
                    first = [1, self.ln_item(j, 0, 6), self.ln_table(g.CURRENT, 72, 24, 20, current_cell(session))]
                else:
                    cell = earlier_cell(session, r, j)
                    first = [1, self.ln_item(j, 2, 30), self.ln_table(g.EARLIER, 144, 18, 50, cell)]
                context = [math.log(1 + len(session)), math.log(1 + len(seeds)), 0, h, ln_base]
                odds[j] = math.exp(sum(P.repeat[min(r, 1)] * [*first, ln_support, ln_mass, trend, *context]))
        whole = sum(novel.values()) or 1
        return {j: (n / whole + odds.get(j, 0)) / (1 + sum(odds.values())) for j, n in novel.items()}
