"""What click-through plugins share: each is a configuration, a network and a subclass of `ocad.clicks.plugin.ClickPlugin`."""
