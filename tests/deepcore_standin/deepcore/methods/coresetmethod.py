class CoresetMethod:
    def __init__(self, dst_train, args, fraction=0.5, random_seed=None, **kwargs):
        if not 0 < fraction <= 1:
            raise ValueError("no such fraction")
        self.dst_train, self.args, self.fraction, self.random_seed = dst_train, args, fraction, random_seed
        self.num_classes = len(dst_train.classes)
        self.n_train = len(dst_train)
        self.coreset_size = round(self.n_train * fraction)

    def select(self, **kwargs):
        return
