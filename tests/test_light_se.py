"""LightSE against its equation, E + E * softmax(W mean(E) + b). Shapes: B batch, F fields, D embedding size."""

import math

import pytest
import torch
from torch import nn

from model.IntTower import LightSE
from preprocessing.errors import UserError


class SeedLightSE(nn.Module):
    """The README's listing, word for word but for the check of dimensions."""

    def __init__(self, field_size, embedding_size=32):
        super().__init__()
        self.softmax = nn.Softmax(dim=1)
        self.field_size = field_size
        self.embedding_size = embedding_size
        self.excitation = nn.Sequential(nn.Linear(self.field_size, self.field_size))

    def forward(self, inputs):
        Z = torch.mean(inputs, dim=-1, out=None)
        A = self.excitation(Z)
        A = self.softmax(A)
        out = inputs * torch.unsqueeze(A, dim=2)
        return inputs + out


def light_se_with(weight: list, bias: list, **options) -> LightSE:
    light_se = LightSE(len(bias), **options)
    with torch.no_grad():
        light_se.excitation.weight.copy_(torch.tensor(weight))
        light_se.excitation.bias.copy_(torch.tensor(bias))
    return light_se


def test_light_se_with_zero_weights_adds_an_equal_share_of_each_field():
    light_se = light_se_with(torch.zeros(4, 4).tolist(), [0.0] * 4, embedding_size=8)
    fields_BFD = torch.randn(2, 4, 8)
    torch.testing.assert_close(light_se(fields_BFD), fields_BFD * 1.25)


def test_light_se_multiplies_each_field_by_one_plus_its_softmax_weight():
    # The first field's score is the second field's mean, and the second's a bias: softmax(log 3, log 2) = (3/5, 2/5).
    light_se = light_se_with([[0.0, 1.0], [0.0, 0.0]], [0.0, math.log(2)])
    fields_BFD = torch.tensor([[[4.0, 6.0], [math.log(3) - 1, math.log(3) + 1]]])  # means 5 and log 3
    torch.testing.assert_close(light_se(fields_BFD), fields_BFD * torch.tensor([1.6, 1.4])[:, None])


def test_light_se_without_residual_gives_the_reweighted_fields_alone():
    weight, bias = torch.randn(3, 3).tolist(), torch.randn(3).tolist()
    fields_BFD = torch.randn(5, 3, 4)
    with_residual = light_se_with(weight, bias)(fields_BFD)
    without_residual = light_se_with(weight, bias, residual=False)(fields_BFD)
    torch.testing.assert_close(without_residual, with_residual - fields_BFD)


@pytest.mark.parametrize(("field_size", "embedding_size"), [(1, 1), (2, 5), (6, 32)])
def test_light_se_equals_the_listing_of_the_readme(field_size, embedding_size):
    light_se = LightSE(field_size, embedding_size)
    listing = SeedLightSE(field_size, embedding_size)
    listing.excitation[0].load_state_dict(light_se.excitation.state_dict())
    fields_BFD = torch.randn(7, field_size, embedding_size)
    torch.testing.assert_close(light_se(fields_BFD), listing(fields_BFD))


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 8, 1), (2, 5, 8)])
def test_light_se_refuses_fields_of_another_shape(shape):
    with pytest.raises(UserError, match=r"LightSE: expected fields of shape \(batch, 4, embedding size\), got \("):
        LightSE(field_size=4, embedding_size=8)(torch.zeros(shape))
