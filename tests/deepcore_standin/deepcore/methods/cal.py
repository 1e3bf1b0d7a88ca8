import numpy as np
import torch

from .. import nets
from .earlytrain import EarlyTrain


class Cal(EarlyTrain):
    def __init__(
        self,
        dst_train,
        args,
        fraction=0.5,
        random_seed=None,
        epochs=200,
        specific_model=None,
        balance=True,
        metric="euclidean",
        neighbors=10,
        pretrain_model="ResNet18",
        **kwargs,
    ):
        super().__init__(dst_train, args, fraction, random_seed, epochs, specific_model, **kwargs)
        self.balance, self.metric, self.neighbors, self.pretrain_model = balance, metric, neighbors, pretrain_model

    def nearest(self, index):
        build = nets.__dict__[self.pretrain_model]
        network = build(
            channel=self.args.channel,
            num_classes=self.args.num_classes,
            im_size=(224, 224),
            record_embedding=True,
            no_grad=True,
            pretrained=True,
        ).to(self.args.device)
        network.eval()
        parts = []
        for inputs, _ in self.batches(index):
            network(inputs.to(self.args.device))
            parts.append(network.embedding_recorder.embedding.flatten(1))
        rows = torch.cat(parts)
        if self.metric == "cossim":
            rows = torch.nn.functional.normalize(rows, dim=1)
        return torch.cdist(rows, rows).argsort(dim=1)[:, 1 : self.neighbors + 1].cpu()

    def select(self, **kwargs):
        groups = [self.members(label) for label in range(self.args.num_classes)] if self.balance else [np.arange(self.n_train)]
        self.knn = [self.nearest(one) for one in groups]
        self.groups = groups
        return self.run()

    def finish_run(self):
        found, scores = [], []
        for index, near in zip(self.groups, self.knn, strict=True):
            self.model.eval()
            with torch.no_grad():
                outputs = torch.cat([self.model(inputs.to(self.args.device)) for inputs, _ in self.batches(index)])
            shares = outputs.double().softmax(dim=1).cpu()
            own, other = shares[:, None].expand(-1, self.neighbors, -1), shares[near]
            scores.append((0.5 * (own - other) * (own.log() - other.log())).sum(dim=2).mean(dim=1).numpy())
            found.append(index[np.argsort(scores[-1])[: round(self.fraction * len(index))]])
        return {"indices": np.concatenate(found), "scores": scores}
