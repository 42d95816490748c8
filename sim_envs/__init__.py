"""MuJoCo tasks and twins, experts, adapters to other simulators."""
