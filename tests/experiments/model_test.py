"""The extrapolation's model: known parameters are found again, and its parts add up."""
import math
import random
import unittest

import paths  # noqa: F401
import model


class FitTest(unittest.TestCase):
    ALPHA, BETA = 3e-6, 0.25e-9

    def points(self, noise=0.0):
        rng = random.Random(1)
        for messages in (1, 2, 6, 20):
            for size in (20, 4000, 400000, 4000000):
                yield messages, size, (self.ALPHA * messages + self.BETA * size) * (1 + noise * rng.uniform(-1, 1))

    def test_finds_alpha_and_beta(self):
        alpha, beta = model.fit_alpha_beta(list(self.points()))
        self.assertAlmostEqual(alpha / self.ALPHA, 1, places=9)
        self.assertAlmostEqual(beta / self.BETA, 1, places=9)

    def test_finds_them_through_noise(self):
        alpha, beta = model.fit_alpha_beta(list(self.points(0.05)))
        self.assertAlmostEqual(alpha / self.ALPHA, 1, delta=0.05)
        self.assertAlmostEqual(beta / self.BETA, 1, delta=0.05)

    def test_neither_is_negative(self):
        # Time falls with size: beta would be below 0; time falls with messages: alpha would be.
        alpha, beta = model.fit_alpha_beta([(1, 100, 2e-6), (1, 1000, 1e-6)])
        self.assertEqual(beta, 0)
        self.assertGreater(alpha, 0)
        alpha, beta = model.fit_alpha_beta([(1, 100, 2e-6), (10, 100, 1e-6), (10, 200, 3e-6)])
        self.assertEqual(alpha, 0)
        self.assertGreater(beta, 0)

    def test_one_kind_of_message_fits_alpha_alone(self):
        self.assertEqual(model.fit_alpha_beta([(1, 0, 2e-6), (2, 0, 4e-6)]), (2e-6, 0.0))

    def test_finds_a_line(self):
        slope, constant = model.fit_line([(10, 10 * 3e-5 + 2e-4), (30, 30 * 3e-5 + 2e-4)])
        self.assertAlmostEqual(slope / 3e-5, 1, places=9)
        self.assertAlmostEqual(constant / 2e-4, 1, places=9)


class CostTest(unittest.TestCase):
    def test_one_rank_sends_nothing(self):
        self.assertEqual(model.cost("tree", 1, 1000, {}), (0, 0))

    def test_allreduce(self):
        self.assertEqual(model.cost("allreduce", 8, 1000, {}), (6, 7000.0))

    def test_a_small_tree_is_one_all_gather(self):
        plan = {"communication": {"calls": 1, "bytes": 700}, "messages": 7}
        self.assertEqual(model.cost("tree", 8, 25, plan), (3, 700))
        plan["communication"]["calls"] = 4
        self.assertEqual(model.cost("tree", 8, 25, plan), (7, 700))


class StepTest(unittest.TestCase):
    COMPUTE = model.Compute(slope=1e-3, constant=2e-4, crowded=1.2, sigma=1e-4, sigma_at=4)
    EXCHANGE = (1e-6, 1e-9, 10, 1000)

    def test_one_rank_alone(self):
        self.assertEqual(model.step_seconds(self.COMPUTE, self.EXCHANGE, 4, 1, 8), (4.2e-3, 0.0, 0.0))

    def test_the_fullest_rank_counts_and_full_machines_are_slower(self):
        compute, exchange, straggler = model.step_seconds(self.COMPUTE, self.EXCHANGE, 9, 8, 8)
        self.assertAlmostEqual(compute, 1.2 * (2e-3 + 2e-4))
        self.assertAlmostEqual(exchange, 11e-6)
        self.assertAlmostEqual(straggler, 1e-4 * model.blom(8) * math.sqrt(0.5))

    def test_more_ranks_than_cores_take_turns(self):
        compute, exchange, straggler = model.step_seconds(self.COMPUTE, self.EXCHANGE, 16, 16, 8)
        self.assertAlmostEqual(compute, 2 * 1.2 * (1e-3 + 2e-4))
        self.assertAlmostEqual(exchange, 22e-6)
        self.assertEqual(straggler, 0)

    def test_nodes_are_as_many_as_needed(self):
        self.assertAlmostEqual(model.step_seconds(self.COMPUTE, self.EXCHANGE, 1024, 1024, None)[0], 1.2 * 1.2e-3)

    def test_expected_largest(self):
        self.assertEqual(model.blom(1), 0)
        self.assertAlmostEqual(model.blom(2), 0.564, delta=0.03)   # exact: 1 / sqrt(pi)
        self.assertAlmostEqual(model.blom(10), 1.539, delta=0.02)  # tables of order statistics
        self.assertLess(model.blom(100), model.blom(1000))

    def test_networks_have_sources(self):
        for name, alpha, beta, source in model.NETWORKS:
            self.assertTrue(0 < beta < 1e-8 and 0 < alpha < 1e-3 and len(source) > 40, name)


if __name__ == "__main__":
    unittest.main()
