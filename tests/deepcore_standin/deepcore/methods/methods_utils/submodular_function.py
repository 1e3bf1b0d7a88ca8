import numpy as np


class SubmodularFunction:
    def __init__(self, index, similarity_matrix):
        self.index, self.similarity = index, similarity_matrix
        self.reached = np.zeros(len(index))

    def update_state(self, new_selection, total_selected, **kwargs):
        self.reached = np.maximum(self.reached, self.similarity[:, new_selection].max(axis=1))


class FacilityLocation(SubmodularFunction):
    def calc_gain(self, idx_gain, selected, **kwargs):
        return np.maximum(0, self.similarity[:, idx_gain] - self.reached[:, None]).sum(axis=0)


class GraphCut(SubmodularFunction):
    def calc_gain(self, idx_gain, selected, **kwargs):
        return self.similarity[:, idx_gain].sum(axis=0) - 2 * self.similarity[np.ix_(selected, idx_gain)].sum(axis=0)


class LogDeterminant(SubmodularFunction):
    def calc_gain(self, idx_gain, selected, **kwargs):
        rows = self.similarity[np.ix_(idx_gain, selected)]
        return (rows @ np.linalg.pinv(self.similarity[np.ix_(selected, selected)]) * rows).sum(axis=1)
