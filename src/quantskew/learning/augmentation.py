"""Random changes of the training images, batch by batch."""

import torch


def augment(images, recipe, generator):
    """Mirror and shift a batch at random.

    Parameters
    ----------
    images : Tensor of uint8, shape (B, C, H, W)
    recipe : Recipe
    generator : torch.Generator

    Returns
    -------
    Tensor of uint8, same shape
    """
    batch, _, height, width = images.shape
    rows = torch.arange(height).expand(batch, height)
    columns = torch.arange(width).expand(batch, width)
    if recipe.shift:
        moves = torch.randint(-recipe.shift, recipe.shift + 1, (2, batch, 1), generator=generator)
        rows = (rows + moves[0]).clamp(0, height - 1)
        columns = (columns + moves[1]).clamp(0, width - 1)
    if recipe.flip:
        mirrored = torch.rand((batch, 1), generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    pixels = images.permute(0, 2, 3, 1)
    pixels = pixels[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2)
