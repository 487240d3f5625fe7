-- Lets the lanes follow their subscriptions: paused or active. Called by: worker, when terms have changed, and now and then.
select posthaste.settle_lanes()
