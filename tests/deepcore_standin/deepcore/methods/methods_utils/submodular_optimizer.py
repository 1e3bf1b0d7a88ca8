import numpy as np

optimizer_choices = ["NaiveGreedy", "LazyGreedy", "StochasticGreedy", "ApproximateLazyGreedy"]


class Optimizer:
    def __init__(self, args, index, budget, already_selected=[]):
        if not 0 < budget <= len(index):
            raise ValueError("no such budget")
        self.args, self.index, self.budget = args, index, budget

    def among(self, free):
        return np.flatnonzero(free)

    def select(self, gain_function, update_state=None, **kwargs):
        taken = np.zeros(len(self.index), dtype=bool)
        for turn in range(self.budget):
            if turn % self.args.print_freq == 0:
                print(f"pick {turn + 1} of {self.budget}")
            free = self.among(~taken)
            best = free[gain_function(free, taken, **kwargs).argmax()]
            taken[best] = True
            if update_state is not None:
                update_state(np.array([best]), taken, **kwargs)
        return self.index[taken]


class NaiveGreedy(Optimizer):
    pass


class LazyGreedy(Optimizer):
    pass


class StochasticGreedy(Optimizer):
    def among(self, free):
        positions = np.flatnonzero(free)
        return np.random.choice(positions, max(1, len(positions) // 4), replace=False)


class ApproximateLazyGreedy(Optimizer):
    def __init__(self, args, index, budget, already_selected=[], beta=0.9):
        super().__init__(args, index, budget, already_selected)
        self.beta = beta

    def select(self, gain_function, update_state=None, **kwargs):
        taken = np.zeros(len(self.index), dtype=bool)
        bound = np.array(gain_function(~taken, taken, **kwargs), dtype=np.float64)
        while taken.sum() < self.budget:
            best = bound.argmax()
            gain = gain_function(np.array([best]), taken, **kwargs)[0]
            if gain < self.beta * bound[best]:
                bound[best] = gain
                continue
            taken[best], bound[best] = True, -np.inf
            if update_state is not None:
                update_state(np.array([best]), taken, **kwargs)
        return self.index[taken]
