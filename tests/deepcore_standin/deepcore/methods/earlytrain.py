import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from .. import nets
from .coresetmethod import CoresetMethod


class EarlyTrain(CoresetMethod):
    """Trains a network, and then lets ``finish_run`` select."""

    def __init__(
        self,
        dst_train,
        args,
        fraction=0.5,
        random_seed=None,
        epochs=200,
        specific_model=None,
        torchvision_pretrain=False,
        dst_test=None,
        **kwargs,
    ):
        super().__init__(dst_train, args, fraction, random_seed)
        self.epochs, self.specific_model, self.torchvision_pretrain = epochs, specific_model, torchvision_pretrain

    def run(self):
        torch.manual_seed(self.random_seed)
        np.random.seed(self.random_seed)
        self.train_indx = np.arange(self.n_train)
        build = nets.__dict__[self.specific_model or self.args.model]
        network = build(self.args.channel, self.num_classes, pretrained=self.torchvision_pretrain, im_size=self.args.im_size)
        self.model = network.to(self.args.device)
        if self.args.device == "cpu":
            print("on the CPU")
        elif self.args.gpu is None and torch.cuda.device_count() > 1:
            self.model = nets.nets_utils.MyDataParallel(self.model).cuda()
        self.criterion = nn.CrossEntropyLoss()
        self.model_optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=self.args.selection_lr,
            momentum=self.args.selection_momentum,
            weight_decay=self.args.selection_weight_decay,
            nesterov=self.args.selection_nesterov,
        )
        self.before_run()
        for epoch in range(self.epochs):
            self.before_epoch()
            self.train(epoch, np.random.choice(np.arange(self.n_train), self.n_train, replace=False))
            self.after_epoch()
        return self.finish_run()

    def train(self, epoch, list_of_train_idx, **kwargs):
        self.before_train()
        self.model.train()
        print(f"epoch {epoch}")
        order = np.random.permutation(list_of_train_idx)
        size = self.args.selection_batch
        for start in range(0, len(order), size):
            chosen = [int(one) for one in order[start : start + size]]
            inputs, targets = next(iter(DataLoader(Subset(self.dst_train, chosen), batch_size=size)))
            self.model_optimizer.zero_grad()
            outputs = self.model(inputs.to(self.args.device))
            loss = self.criterion(outputs, targets.to(self.args.device))
            self.after_loss(outputs, loss, targets, chosen, epoch)
            loss.mean().backward()
            self.model_optimizer.step()
        return self.finish_train()

    def members(self, label):
        return np.arange(self.n_train)[self.dst_train.targets == label]

    def batches(self, index):
        some = self.dst_train if index is None else Subset(self.dst_train, index)
        return DataLoader(some, batch_size=self.args.selection_batch, num_workers=self.args.workers)

    def embeddings(self, index):
        self.model.eval()
        self.model.no_grad = True
        parts = []
        with torch.no_grad(), self.model.embedding_recorder:
            for inputs, _ in self.batches(index):
                self.model(inputs.to(self.args.device))
                parts.append(self.model.embedding_recorder.embedding)
        self.model.no_grad = False
        return torch.cat(parts)

    def gradients(self, index):
        """Of the mean loss of a batch, by the last layer: bias first, then the weights of one output after the other."""
        self.model.eval()
        self.model.no_grad = True
        parts = []
        with self.model.embedding_recorder:
            for inputs, targets in self.batches(index):
                outputs = self.model(inputs.to(self.args.device)).requires_grad_(True)
                loss = self.criterion(outputs, targets.to(self.args.device)).sum()
                slopes = torch.autograd.grad(loss, outputs)[0]
                weights = slopes[:, :, None] * self.model.embedding_recorder.embedding[:, None, :]
                parts.append(torch.cat([slopes, weights.flatten(1)], dim=1))
        self.model.no_grad = False
        self.model.train()
        return torch.cat(parts)

    def before_run(self):
        pass

    def before_epoch(self):
        pass

    def before_train(self):
        pass

    def after_loss(self, outputs, loss, targets, batch_inds, epoch):
        pass

    def finish_train(self):
        pass

    def after_epoch(self):
        pass

    def finish_run(self):
        pass

    def select(self, **kwargs):
        return self.run()
