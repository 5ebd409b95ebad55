"""LightSE against its equation, E + E * softmax(W mean(E) + b). Shapes: B batch, F fields, D embedding size."""

import math

import pytest
import torch
from torch import Tensor, nn

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


def fields_with_means(*means: float) -> Tensor:
    """One row of fields of size 2 whose elements lie 1 below and 1 above the mean."""
    return torch.tensor([[[mean - 1, mean + 1] for mean in means]])


def test_light_se_with_zero_weights_adds_an_equal_share_of_each_field():
    light_se = light_se_with(torch.zeros(4, 4).tolist(), [0.0] * 4, embedding_size=8)
    fields_BFD = torch.randn(2, 4, 8)
    torch.testing.assert_close(light_se(fields_BFD), fields_BFD * 1.25)


def test_light_se_multiplies_each_field_by_one_plus_its_softmax_weight():
    # The first field's score is the second field's mean: softmax(log 3, 0) = (3/4, 1/4).
    light_se = light_se_with([[0.0, 1.0], [0.0, 0.0]], [0.0, 0.0])
    fields_BFD = fields_with_means(5.0, math.log(3))
    expected = fields_BFD * torch.tensor([1.75, 1.25])[:, None]
    torch.testing.assert_close(light_se(fields_BFD), expected)


def test_light_se_adds_the_bias_before_the_softmax():
    light_se = light_se_with([[0.0, 0.0], [0.0, 0.0]], [0.0, math.log(4)])
    fields_BFD = fields_with_means(1.0, 2.0)
    expected = fields_BFD * torch.tensor([1.2, 1.8])[:, None]
    torch.testing.assert_close(light_se(fields_BFD), expected)


def test_light_se_without_residual_gives_the_reweighted_fields_alone():
    weight, bias = torch.randn(3, 3).tolist(), torch.randn(3).tolist()
    fields_BFD = torch.randn(5, 3, 4)
    with_residual = light_se_with(weight, bias)(fields_BFD)
    without_residual = light_se_with(weight, bias, residual=False)(fields_BFD)
    torch.testing.assert_close(without_residual, with_residual - fields_BFD)
    # The weights of a row sum to one, so equal fields come out as one field in all.
    same_field_BFD = torch.randn(5, 1, 4).expand(-1, 3, -1)
    summed_BD = light_se_with(weight, bias, residual=False)(same_field_BFD).sum(1)
    torch.testing.assert_close(summed_BD, same_field_BFD[:, 0])


def test_light_se_doubles_the_input_of_a_single_field():
    fields_BFD = torch.randn(6, 1, 4)
    torch.testing.assert_close(LightSE(field_size=1, embedding_size=4)(fields_BFD), 2 * fields_BFD)


@pytest.mark.parametrize(("field_size", "embedding_size"), [(1, 1), (2, 5), (6, 32)])
def test_light_se_equals_the_listing_of_the_readme(field_size, embedding_size):
    light_se = LightSE(field_size, embedding_size)
    listing = SeedLightSE(field_size, embedding_size)
    listing.excitation[0].load_state_dict(light_se.excitation.state_dict())
    fields_BFD = torch.randn(7, field_size, embedding_size)
    torch.testing.assert_close(light_se(fields_BFD), listing(fields_BFD))


def test_light_se_weighs_the_rows_of_a_batch_apart():
    light_se = LightSE(3, 4)
    fields_BFD = torch.randn(5, 3, 4)
    one_by_one = torch.cat([light_se(fields_BFD[row : row + 1]) for row in range(5)])
    torch.testing.assert_close(light_se(fields_BFD), one_by_one)


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 8, 1), (2, 5, 8), (4, 8)])
def test_light_se_refuses_fields_of_another_shape(shape):
    with pytest.raises(UserError, match=r"LightSE: expected fields of shape \(batch, 4, embedding size\), got \("):
        LightSE(field_size=4, embedding_size=8)(torch.zeros(shape))
