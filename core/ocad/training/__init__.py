"""The torch loop of every torch plugin: `ocad.training.loop.fit` with `ocad.training.options.TrainOptions`."""
