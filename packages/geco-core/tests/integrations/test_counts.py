"""The recipe for counts: a likelihood in nats is reached, and kept."""


def test_the_recipe_reaches_the_likelihood(recipe):
    objective = recipe("counts", "torch").main(at_most=110.0)
    assert abs(float(objective.info.moving_average)) < 0.02 * 110
    # looser than the ELBO's own likelihood (about 101 nats): the KL weighs more than in the ELBO
    assert 0 < float(objective.info.multiplier) < 1
