"""The one model core: device, batch, assembly, loop, sliding-window inference."""
