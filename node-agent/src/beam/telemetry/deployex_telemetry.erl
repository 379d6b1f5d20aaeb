%% Counts the `telemetry` events of a node, in a bounded table, for the agent that reads it. Of no use without that agent.
%%
%%   whoever emits ──▶ handle/4 ──▶ table ◀── turn/4 (the agent, by erpc: attaches, reads and renews the lease)
%%                                    ▲
%%                                  owner ── ends, and all of it with it, when the lease is not renewed
%%
%% The owner is asked by nobody: who emits an event writes to the table and to atomics, so that an owner that stands keeps
%% nobody waiting. Names come as text and are made into atoms that exist: nothing is left behind of an event that nobody emits.
%%
%% Compiled beside this file, as the agent carries it: erlc +deterministic deployex_telemetry.erl (OTP 25).
-module(deployex_telemetry).

-export([turn/4, stop/0]).
%% For telemetry and for spawn alone.
-export([handle/4, owner/5]).

%% Of a label, in bytes.
-define(LABEL, 100).
%% Names of measurements of one event.
-define(NAMES, 10).
%% Events, the repositories' included.
-define(EVENTS, 64).
%% No duration and no measurement is larger.
-define(LARGEST, (1 bsl 53)).
-define(TRIES, 8).

%% Of a row's atomics. Each timed event counts in one bucket alone.
-define(UNTIMED, 1).
-define(SUM, 2).
-define(MAX, 3).
-define(BUCKETS, 4).
-define(BOUNDS_US, [1000, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000]).
-define(ROW, 17).
-define(NAMED, 17).

%% Of the table's own atomics.
-define(FAILED, 1).
-define(ROWS, 2).
-define(LAST, 3).

%% Wishes: [{Name, phoenix | live_view | ecto | plain} | repositories]. Rows: how many with a label. Lease: in milliseconds.
%% other: this is not the module with that digest.
turn(Digest, Wishes, Rows, Lease) ->
    case ?MODULE:module_info(md5) of
        Digest ->
            try ensured(Wishes, Rows, Lease) of
                Unknown -> told(Unknown)
            catch
                throw:Reason -> Reason;
                Class:Reason -> {failed, clip(io_lib:format("~p: ~0tP", [Class, Reason, 12]))}
            end;
        _ -> other
    end.

%% Whatever the owner does, or whether there is one.
stop() ->
    detach(),
    case whereis(?MODULE) of
        undefined -> ok;
        Owner ->
            Monitor = monitor(process, Owner),
            exit(Owner, kill),
            receive {'DOWN', Monitor, _, _, _} -> ok after 4000 -> standing end
    end.

ensured(Wishes, Rows, Lease) ->
    case code:ensure_loaded(telemetry) of
        {module, _} -> ok;
        {error, _} -> throw(no_telemetry)
    end,
    %% Before its application has started there is nothing to attach to, and whoever asks then is told off in the log.
    whereis(telemetry_handler_table) =/= undefined orelse throw(not_started),
    Handlers = try telemetry:list_handlers([]) catch _:_ -> throw(not_started) end,
    Ours = [1 || #{id := {?MODULE, _}} <- Handlers],
    case ets:whereis(?MODULE) =/= undefined andalso ets:lookup(?MODULE, wishes) of
        [{wishes, Wishes, Rows}] ->
            case atomics:get(ets:lookup_element(?MODULE, shared, 2), ?LAST) of
                Count when Count =:= length(Ours) -> ets:insert(?MODULE, {until, now_ms() + Lease});
                %% telemetry itself has begun anew, or somebody has detached what is not theirs.
                _ -> anew(Wishes, Rows, Lease)
            end;
        _ -> anew(Wishes, Rows, Lease)
    end,
    attach(Rows, Wishes).

anew(Wishes, Rows, Lease) ->
    stop(),
    start(Wishes, Rows, Lease).

start(Wishes, Rows, Lease) ->
    Ready = make_ref(),
    {Owner, Monitor} = spawn_opt(?MODULE, owner, [self(), Ready, Wishes, Rows, Lease], [monitor]),
    receive
        Ready -> demonitor(Monitor, [flush]);
        {'DOWN', Monitor, _, Owner, Why} -> error({owner, Why})
    end.

owner(Starter, Ready, Wishes, Rows, Lease) ->
    %% Else what it belongs to would be our node.
    group_leader(whereis(init), self()),
    register(?MODULE, self()),
    ets:new(?MODULE, [named_table, public, {read_concurrency, true}, {write_concurrency, true}]),
    Began = [{wishes, Wishes, Rows}, {until, now_ms() + Lease}, {shared, atomics:new(?LAST, [])}, {began, now_ms()}],
    ets:insert(?MODULE, Began),
    Starter ! Ready,
    watch().

watch() ->
    case ets:lookup_element(?MODULE, until, 2) - now_ms() of
        Left when Left > 0 ->
            receive _ -> ok after Left -> ok end,
            watch();
        _ -> detach()
    end.

%% Every handler of ours, also of an owner that was killed.
detach() ->
    try whereis(telemetry_handler_table) =/= undefined andalso telemetry:list_handlers([]) of
        false -> ok;
        All -> [telemetry:detach(Id) || #{id := {?MODULE, _} = Id} <- All], ok
    catch
        _:_ -> ok
    end.

%% What is not attached yet; returns the names that no code of the node has, and those that are too many.
attach(Rows, Wishes) ->
    Named = lists:flatmap(fun(repositories) -> repositories(); (Wish) -> [Wish] end, Wishes),
    [Missed || {Name, Kind} <- Named, Missed <- missed(attached(Rows, Name, Kind), Name)].

missed(unknown, Name) -> [Name];
missed(full, Name) -> [<<Name/binary, " (no more than 64 are counted)">>];
missed(_, _) -> [].

attached(Rows, Name, Kind) ->
    case ets:member(?MODULE, {name, Name}) of
        true -> known;
        false ->
            try [binary_to_existing_atom(It, utf8) || It <- binary:split(Name, <<".">>, [global])] of
                Event -> attach(Rows, Name, Event, Kind)
            catch
                error:badarg -> unknown
            end
    end.

attach(Rows, Name, Event, Kind) ->
    Shared = ets:lookup_element(?MODULE, shared, 2),
    case atomics:add_get(Shared, ?LAST, 1) of
        Number when Number > ?EVENTS -> atomics:sub(Shared, ?LAST, 1), full;
        Number ->
            Base = atomics:new(?ROW, [{signed, false}]),
            Bounds = list_to_tuple([erlang:convert_time_unit(It, microsecond, native) || It <- ?BOUNDS_US]),
            Config = {Kind, Number, ets:whereis(?MODULE), Base, Shared, Rows, Bounds},
            Handle = fun ?MODULE:handle/4,
            try telemetry:attach_many({?MODULE, Number}, [Event], Handle, Config) of
                ok -> ok
            catch
                Class:Reason:Stack -> atomics:sub(Shared, ?LAST, 1), erlang:raise(Class, Reason, Stack)
            end,
            ets:insert(?MODULE, [{{event, Number}, Name, Kind, Base}, {{name, Name}}]),
            attached
    end.

%% The query event of each repository that an application names.
repositories() ->
    Applications = [Application || {Application, _, _} <- application:loaded_applications()],
    Listed = [{It, application:get_env(It, ecto_repos, [])} || It <- Applications],
    Modules = lists:usort([{It, Of} || {Of, Some} <- Listed, is_list(Some), It <- Some, is_atom(It)]),
    [{Name, ecto} || {It, Of} <- Modules, Name <- query(It, Of)].

query(Repository, Application) ->
    try [<<(joined(prefix(Repository, Application)))/binary, ".query">>] catch _:_ -> [] end.

%% As it is configured. Its own config/0 would run a callback of the application's, which may do anything.
prefix(Repository, Application) ->
    case lists:keyfind(telemetry_prefix, 1, application:get_env(Application, Repository, [])) of
        {telemetry_prefix, [_ | _] = Prefix} -> Prefix;
        _ -> by_name(Repository)
    end.

%% MyApp.HTTPRepo: my_app.http_repo
by_name(Repository) ->
    Parts = string:split(atom_to_list(Repository), ".", all),
    [unicode:characters_to_binary(underscored(It)) || It <- case Parts of ["Elixir" | Rest] -> Rest; _ -> Parts end].

underscored(Part) ->
    Again = [global, {return, list}],
    Split = re:replace(Part, "([A-Z]+)([A-Z][a-z])", "\\1_\\2", Again),
    string:lowercase(re:replace(Split, "([a-z0-9])([A-Z])", "\\1_\\2", Again)).

joined(Parts) ->
    iolist_to_binary(lists:join(".", [if is_atom(It) -> atom_to_binary(It, utf8); true -> It end || It <- Parts])).

%% ---- in the process of whoever emits: nothing is raised, nothing is sent, and nothing grows with what is in the event

handle(_Event, Measurements, Metadata, {_, _, _, _, Shared, _, _} = Config) ->
    try
        noted(Measurements, Metadata, Config)
    catch
        _:_ -> catch atomics:add(Shared, ?FAILED, 1)
    end,
    ok;
handle(_, _, _, _) -> ok.

noted(#{duration := Duration}, Metadata, Config) when is_integer(Duration), Duration >= 0, Duration < ?LARGEST ->
    timed(Duration, row(Metadata, Config), element(7, Config));
noted(#{total_time := Duration}, Metadata, Config) when is_integer(Duration), Duration >= 0, Duration < ?LARGEST ->
    timed(Duration, row(Metadata, Config), element(7, Config));
noted(#{} = Measurements, Metadata, Config) ->
    atomics:add(row(Metadata, Config), ?UNTIMED, 1),
    {_, Number, Table, Base, _, _, _} = Config,
    measured(maps:next(maps:iterator(Measurements)), 2 * ?NAMES, {Table, Number, Base}).

timed(Duration, Row, Bounds) ->
    atomics:add(Row, ?SUM, Duration),
    atomics:add(Row, bucket(Duration, Bounds, 1), 1),
    peak(Row, Duration, ?TRIES).

bucket(Duration, Bounds, At) when At =< tuple_size(Bounds), Duration > element(At, Bounds) ->
    bucket(Duration, Bounds, At + 1);
bucket(_, _, At) -> ?BUCKETS + At - 1.

peak(_, _, 0) -> ok;
peak(Row, Duration, Tries) ->
    case atomics:get(Row, ?MAX) of
        Most when Most >= Duration -> ok;
        Most ->
            case atomics:compare_exchange(Row, ?MAX, Most, Duration) of
                ok -> ok;
                _ -> peak(Row, Duration, Tries - 1)
            end
    end.

row(Metadata, {phoenix, _, _, _, _, _, _} = Config) -> row(route(Metadata), status(Metadata), Config);
row(Metadata, {live_view, _, _, _, _, _, _} = Config) -> row(view(Metadata), 0, Config);
row(Metadata, {ecto, _, _, _, _, _, _} = Config) -> row(source(Metadata), 0, Config);
row(_, {_, _, _, Base, _, _, _}) -> Base.

row(Label, Status, {_, Number, Table, Base, Shared, Rows, _}) ->
    Key = {Number, Label, Status},
    case ets:lookup(Table, Key) of
        [{_, Row}] -> Row;
        [] ->
            case atomics:get(Shared, ?ROWS) < Rows andalso atomics:add_get(Shared, ?ROWS, 1) of
                false -> Base;
                Count when Count > Rows -> atomics:sub(Shared, ?ROWS, 1), Base;
                _ -> new_row(Table, {Number, binary:copy(Label), Status}, Shared)
            end
    end.

new_row(Table, Key, Shared) ->
    Row = atomics:new(?ROW, [{signed, false}]),
    case ets:insert_new(Table, {Key, Row}) of
        true -> Row;
        %% Another was faster.
        false -> atomics:sub(Shared, ?ROWS, 1), ets:lookup_element(Table, Key, 2)
    end.

route(#{route := Route}) when is_binary(Route) -> cut(Route);
route(_) -> <<>>.

status(#{conn := #{status := Status}}) when is_integer(Status), Status >= 100, Status =< 599 -> Status div 100;
status(_) -> 0.

view(#{socket := #{view := View}}) when is_atom(View) ->
    case atom_to_binary(View, utf8) of
        <<"Elixir.", Name/binary>> -> cut(Name);
        Name -> cut(Name)
    end;
view(_) -> <<>>.

source(#{source := Source}) when is_binary(Source) -> cut(Source);
source(_) -> <<>>.

cut(Text) when byte_size(Text) =< ?LABEL -> Text;
cut(Text) -> binary:part(Text, 0, ?LABEL).

measured(none, _, _) -> ok;
measured(_, 0, _) -> ok;
measured({Name, Value, Rest}, Left, Of) ->
    case is_atom(Name) andalso is_shown(Value) of
        true -> set(Name, Value, Of);
        false -> ok
    end,
    measured(maps:next(Rest), Left - 1, Of).

is_shown(Value) when is_float(Value) -> true;
is_shown(Value) when is_integer(Value) -> Value > -?LARGEST andalso Value < ?LARGEST;
is_shown(_) -> false.

set(Name, Value, {Table, Number, Base}) ->
    Key = {last, Number, Name},
    ets:update_element(Table, Key, {2, Value}) orelse
        case atomics:get(Base, ?NAMED) < ?NAMES andalso atomics:add_get(Base, ?NAMED, 1) of
            false -> false;
            Count when Count > ?NAMES -> atomics:sub(Base, ?NAMED, 1), false;
            _ -> ets:insert_new(Table, {Key, Value}) orelse atomics:sub(Base, ?NAMED, 1)
        end.

%% ---- for the agent

%% {told, UpMs, Failures, Unknown, [{Number, Name, Kind}], [Row], [{Number, Measurement, Value}]}
told(Unknown) ->
    All = ets:tab2list(?MODULE),
    Up = now_ms() - ets:lookup_element(?MODULE, began, 2),
    Failed = atomics:get(ets:lookup_element(?MODULE, shared, 2), ?FAILED),
    Events = [{Number, Name, Kind} || {{event, Number}, Name, Kind, _} <- All],
    Labelled = [figures(Number, Label, Status, Row) || {{Number, Label, Status}, Row} <- All, is_integer(Number)],
    Others = [figures(Number, others(Kind), 0, Base) || {{event, Number}, _, Kind, Base} <- All],
    Rows = [It || It <- Labelled ++ Others, element(4, It) > 0],
    Last = [{Number, atom_to_binary(Name, utf8), Value} || {{last, Number, Name}, Value} <- All],
    {told, Up, Failed, Unknown, Events, Rows, Last}.

others(plain) -> <<>>;
others(_) -> other.

%% {Number, Label, Status, Count, SumUs, MaxUs, Buckets}; no buckets: it says nothing of how long it took.
figures(Number, Label, Status, Row) ->
    Buckets = [atomics:get(Row, ?BUCKETS + It) || It <- lists:seq(0, length(?BOUNDS_US))],
    Timed = lists:sum(Buckets),
    Us = fun(At) -> erlang:convert_time_unit(atomics:get(Row, At), native, microsecond) end,
    Shown = if Timed > 0 -> Buckets; true -> [] end,
    {Number, Label, Status, Timed + atomics:get(Row, ?UNTIMED), Us(?SUM), Us(?MAX), Shown}.

now_ms() -> erlang:monotonic_time(millisecond).

clip(Chars) ->
    Text = unicode:characters_to_binary(Chars),
    binary:part(Text, 0, min(500, byte_size(Text))).
